"""The train step, and the compiled loop around it. Nothing here touches a disk."""
