"""The published figures: as the paper has them, complete, and each with a source."""

import tomllib

import pytest

from swinir.reproduce import published as p
from swinir.reproduce.published import TABLES, Place
from swinir.tasks import TASKS
from swinir.testsets import BENCHMARK_SETS
from swinir.weights.zoo import RELEASED, TASK_IN_NAME

PAPER = {  # typed from the paper and the released README: table, data, level, set, plus, figures
    ("table2", "DIV2K", 2, "Set5", False): {"psnr_y": 38.35, "ssim_y": 0.9620},
    ("table2", "DF2K", 2, "Manga109", True): {"psnr_y": 40.02, "ssim_y": 0.9800},
    ("table2", "DIV2K", 3, "Urban100", False): {"psnr_y": 29.29, "ssim_y": 0.8744},
    ("table2", "DIV2K", 4, "Manga109", True): {"psnr_y": 31.88, "ssim_y": 0.9423},
    ("table2", "DF2K", 4, "BSD100", False): {"psnr_y": 27.92, "ssim_y": 0.7489},
    ("table3", "DIV2K", 2, "Set14", False): {"psnr_y": 33.86, "ssim_y": 0.9206},
    ("table3", "DIV2K", 4, "Manga109", False): {"psnr_y": 30.92, "ssim_y": 0.9151},
    ("table4", "DFWB", 10, "classic5", False): {"psnr": 30.27, "ssim": 0.8249, "psnrb": 29.95},
    ("table4", "DFWB", 40, "LIVE1", False): {"psnr": 34.67, "ssim": 0.9317, "psnrb": 33.88},
    ("table5", "DFWB", 25, "Set12", False): {"psnr": 31.01},
    ("table5", "DFWB", 50, "Urban100", False): {"psnr": 27.98},
    ("table6", "DFWB", 15, "Kodak24", False): {"psnr": 35.34},
    ("table6", "DFWB", 50, "McMaster", False): {"psnr": 30.22},
    ("color_jpeg", "DFWB", 20, "LIVE1", False): {"psnr": 30.45, "ssim": 0.8741, "psnrb": 29.97},
    ("div2k", "DF2K", 4, "DIV2K-val", False): {"psnr": 29.63, "ssim": 0.8347, "psnr_y": 31.08, "ssim_y": 0.8523},
}


@pytest.mark.parametrize(("where", "values"), PAPER.items(), ids=lambda v: "-".join(map(str, v)))
def test_figures_are_those_of_the_paper(where, values):
    table, *place = where
    assert p.published(TABLES[table], Place(*place)).values == values


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_tables_fit_the_tasks_sets_and_released_weights(table):
    assert set(table.sets) <= set(BENCHMARK_SETS)
    assert set(table.levels) <= set(TASKS[table.task].levels)
    assert set(table.data) <= {entry.parts.data for entry in RELEASED if entry.parts.task == table.task}
    if TASK_IN_NAME[table.task][1] == "x":
        assert all(level in BENCHMARK_SETS[name].scales for name in table.sets for level in table.levels)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_every_released_row_is_there_with_all_metrics(table):
    absent = [("color_jpeg", "classic5")]  # which others measured alone
    for data in table.data:
        for level in table.levels:
            for name in table.sets:
                row = p.published(table, Place(data, level, name, False))
                if (table.name, name) in absent:
                    assert row is None
                    assert p.third_party(table, Place(data, level, name, False))
                else:
                    assert tuple(row.values) == table.metrics


def test_self_ensemble_was_published_for_all_of_table_2_and_nowhere_else():
    for table in TABLES.values():
        plus = [row.place for row in p.figures(table) if row.plus]
        assert len(plus) == len(set(plus)) == (30 if table.name == "table2" else 0)


@pytest.mark.parametrize("entry", [e for e in RELEASED if e.published], ids=lambda e: e.alias)
def test_figures_agree_with_those_that_the_zoo_states(entry):
    tables = [t for t in TABLES.values() if t.task == entry.parts.task and t.name != "div2k"]
    (table,) = tables
    for words in entry.published.split(", "):
        name, values = words.split(" ")
        name = {"Classic5": "classic5"}.get(name, name)
        row = p.published(table, Place(entry.parts.data, entry.parts.level, name, False))
        assert list(row.values.values()) == [float(v) for v in values.split("/")]


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_figures_are_plausible_and_come_from_known_sources(table):
    for row in p.figures(table):
        assert row.source in p.SOURCES
        for metric, value in row.values.items():
            low, high = (0.6, 1.0) if metric.startswith("ssim") else (25.0, 41.0)
            assert low < value < high
        assert "psnrb" not in row.values or row.values["psnrb"] < row.values["psnr"]


def test_swinir_is_better_than_rcan_on_average():
    rcan = [r for r in p.figures(TABLES["table2"]) if r.method == "RCAN"]
    gains = [p.published(TABLES["table2"], r.place).values["psnr_y"] - r.values["psnr_y"] for r in rcan]
    assert len(gains) == 15
    assert 0.1 < sum(gains) / len(gains) < 0.4


def test_others_measured_the_released_weights_near_the_paper_but_with_more_ssim():
    found = [
        (row, p.published(table, row.place))
        for table in TABLES.values()
        for row in p.figures(table)
        if row.source in p.THIRD_PARTY and p.published(table, row.place)
    ]
    for row, known in found:
        for metric in row.values:
            assert row.values[metric] - known.values[metric] == pytest.approx(
                0, abs=0.13 if metric[:4] == "psnr" else 0.001
            )
    ssim = [row.values[m] - known.values[m] for row, known in found for m in row.values if m[:4] == "ssim"]
    assert 0.0003 < sum(ssim) / len(ssim) < 0.0009


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda t: t.name)
def test_notes_with_figures_meet_a_published_cell(table):
    for note in p.notes(table):
        assert note.text
        assert not note.text.endswith(".")
        assert bool(note.where) == bool(note.values)
        meeting = [
            r for r in p.figures(table) if r.method == p.METHOD and r.source in p.PUBLISHED and note.holds(r.place)
        ]
        if note.values:
            assert len(meeting) == 1
            assert set(note.values) < set(meeting[0].values)


def test_every_note_belongs_to_a_table():
    rows = tomllib.loads(p._file("notes.toml").read_text(encoding="utf-8"))["note"]
    assert len(rows) == sum(len(p.notes(table)) for table in TABLES.values())


def test_costs_are_those_of_table_3():
    ours = {cost.level: (cost.parameters_k, cost.macs_g) for cost in p.costs() if cost.method == p.METHOD}
    assert ours == {2: (878, 195.6), 3: (886, 87.2), 4: (897, 49.6)}


def test_a_line_that_does_not_fit_its_table_is_refused(monkeypatch):
    line = {"method": "X", "data": "DIV2K", "level": "5", "plus": "", "source": "paper", "Set12": "1", "BSD68": "1"}
    monkeypatch.setattr(p, "_lines", lambda _: iter([line | {"Urban100": "1"}]))
    p.figures.cache_clear()
    with pytest.raises(ValueError, match=r"table5\.csv: a line that does not fit"):
        p.figures(TABLES["table5"])
    p.figures.cache_clear()
