"""The tutorial: its code runs, its numbers are true, and both languages have the same code."""

import re
from pathlib import Path

import jax
import matplotlib
import pytest
import sync

TUTORIAL = Path(sync.__file__).parent
CHAPTERS = sync.chapters("en")
CLAIMS = {
    "1-sequences": [
        "round(memoryless, 3) == 0.462 and losses[-1] - memoryless < 2e-3",
        "abs(probabilities[0, 1] - 0.5) < 0.01 and abs(probabilities[5, 4] - 0.5) < 0.01",
        "best_loss(['hihello'], 2) == 0 == best_loss(['banana'], 1)",
        "len({tuple(one_hot[ids[: t + 1]].sum(0)) for t in range(6)}) == 6",
    ],
    "2-step": [
        "abs(one_unit(np.eye(30)[0], 3.0, 2.0)[5:] - 0.96).max() < 0.005",
        "one_unit(np.eye(30)[0], 3.0, 0.5)[8] < 0.01",
        "one_unit(np.eye(30)[0], 3.0, 0.9)[8] > 0.1",
        "abs(from_a - 0.96) < 0.005 and abs(from_b + 0.96) < 0.005",
        "abs(states[0] - states[2]).max() > 0.9 and abs(states[4] - states[5]).max() > 0.1",
        "difference < 1e-6",
    ],
    "3-training": [
        "max(abs(grads[name] - jax_grads[name]).max() for name in params) < 1e-6",
        "sizes[5, 5] > sizes[5, 4] > sizes[5, 3] > sizes[5, 2] and not sizes[0, 1:].any()",
        "''.join(characters[n] for n in probabilities.argmax(-1)) == 'ihello'",
        "history[-1].max() < 0.01 and history.shape == (1000, 6)",
        "abs((up - numpy_loss(changed)) / (2 * small) / grads['W_h'][0, 1] - 1) < 1e-8",
        "numpy_loss(values) < 0.01 and not through_time",
    ],
    "4-forgetting": [
        "elman[0.5][40] < 1e-12 and 2e-4 < elman[0.95][100] < 5e-4 and elman[2.0][100] > 1e3",
        "0.1 < elman[1.05][100] < 1",
        "lstm_difference < 1e-6",
        "c[9] == c[55] == 0 and abs(c[[10, 30, 49]] - 0.9).max() < 1e-9 and h[29] == h[45] == 0",
        "curves['GRU'][100] < curves['simple, radius 0.95'][100]",
        "0.01 < curves['LSTM'][100] < 0.04",
        "min(curves['GRU, bias 5'][100], curves['LSTM, bias 5'][100]) > 0.5",
        "abs(sum((grad**2).sum() for grad in clipped.values()) - 1) < 1e-9",
    ],
    "5-lab": [
        "difference.max() < 1e-5 and same",
        "(predictions[8:] == ids[1:]).all() and not (predictions[7] == ids[1:]).all()",
        "(predictions[0] == characters.index('l')).all()",
        "5e-5 < abs(np.array(with_optax) - golden['loss']).max() < 2e-4 and value < 0.05",
    ],
    "6-compiled": [
        "traces == [(3,), (4,)] and by_scan < 50 < 5000 < by_loop",
        "list(learned[:, 0]) == sorted(learned[:, 0], reverse=True) and learned[2, 0] < 60",
        "12 <= (learned[2] == 60).sum() <= 22 and not (learned[:2] == 60).any()",
        "np.percentile(learned[2], 50) < np.percentile(learned[1], 50)",
        "0.15 < (learned[0][:, None] < learned[1]).mean() < 0.21 and (slow < fast).mean() < 0.01",
        "np.allclose(wilson(17, 20), (0.6396, 0.9476), atol=1e-4)",
        "0.15 < wilson(0, 20)[1] < 0.17",
        "0.82 < (1 - (learned[2] == 60).mean()) ** 10 < 0.87",
        "(learned_at(right)[2] == 60).mean() > 0.5",
    ],
    "7-language-model": [
        "len(vocabulary) == 72 and 60 < np.exp(validation[0]) < 85",
        "3 < np.exp(np.nanmin(validation)) < 4 and values['loss'][0][-1] < np.nanmin(validation)",
        "tables[1][0, 1] > 0.97 and tables[1][2, 1:3].sum() < 0.02 and tables[0].max() < 0.4",
        "abs(correlation[unit]) > 0.5 and bits < 4",
        "'법률이 정하는' in ''.join(generate_text(folder, '모든 국민은 ', 120, Sampling(0.0)))",
    ],
    "8-your-own": [
        "solved['paced'] >= 19 and 8 <= solved['simple'] <= 14",
        "0.1 < low < 0.3 and 0.6 < high < 0.8",
        "min(losses['simple'][:, 60]) < 0.05 < min(losses['paced'][:, 60])",
        "(final['simple'] > 0.6).any() and np.abs(plain - paced).max() == 0",
        "of_100[2] - of_100[1] < (high - low) / 2 and task.memoryless_loss == np.log(2)",
    ],
}
"""What the text says about the results, by chapter: expressions of the names in its code."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_code_runs_and_the_text_is_true(chapter, cache_home, monkeypatch):
    """In one namespace, in the chapter's folder and with JAX's promotion, as a notebook."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(chapter.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    names = {"__name__": "__main__"}
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for n, (_, code) in enumerate(sync.blocks(chapter.read_text("utf-8"))):
            exec(compile(code, f"{chapter.name}, block {n}", "exec"), names)
            pyplot.close("all")
        for claim in CLAIMS[chapter.stem]:
            assert eval(claim, names), claim


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_both_languages_have_the_same_code(chapter):
    """`python docs/tutorial/sync.py` makes it so."""
    english = chapter.read_text("utf-8")
    korean = (TUTORIAL / "ko" / chapter.name).read_text("utf-8")
    assert sync.blocks(english) == sync.blocks(korean)
    for mark in (r"^## ", r"^```", r"^\|", r"^\*\*\d\.\*\* ", r"^:class: dropdown$"):
        assert len(re.findall(mark, english, re.M)) == len(re.findall(mark, korean, re.M)), mark
    for page in (english, korean):
        assert len(re.findall(r"^\*\*\d\.\*\* ", page, re.M)) == 3  # exercises
        assert page.count(":class: dropdown") >= 3  # and their answers


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_chapter_is_a_notebook_in_the_index(language):
    index = (TUTORIAL / language / "index.md").read_text("utf-8")
    header = CHAPTERS[0].read_text("utf-8").split("# 1.")[0]
    for n, page in enumerate(sync.chapters(language), 1):
        assert re.search(rf"^{page.stem}$", index, re.M)
        assert page.read_text("utf-8").startswith(f"{header}# {n}. ")
        assert not re.search(r"^```py(?!thon$)", page.read_text("utf-8"), re.M)  # would not run


def test_sync_refuses_pages_with_other_blocks():
    page = "a\n```python\n1\n```\nb\n```{code-cell} ipython3\n```\n"
    source = [("python", "x = 1\n"), ("{code-cell} ipython3", "y\n")]
    assert sync.blocks(sync.with_blocks(page, source)) == source
    with pytest.raises(ValueError, match="the page has the blocks"):
        sync.with_blocks(page, source[:1])
