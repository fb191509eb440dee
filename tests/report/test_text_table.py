"""Tables as text."""

from swinir.report.text_table import TextTable, csv_text

TABLE = TextTable(("name", "MB"), [("a", "7"), ("[red]b|c", "1,000"), ("x" * 300, "")], right=(1,))


def test_text_is_aligned_and_depends_on_no_terminal(monkeypatch):
    expected = ["name".ljust(300) + "     MB", "a".ljust(300) + "      7", "[red]b|c".ljust(300) + "  1,000", "x" * 300]
    assert TABLE.text().splitlines() == expected
    for name, value in {"COLUMNS": "20", "TERM": "dumb", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert TABLE.text().splitlines() == expected


def test_markdown_escapes_pipes():
    assert TABLE.markdown().splitlines()[:4] == ["| name | MB |", "|---|---:|", "| a | 7 |", r"| [red]b\|c | 1,000 |"]


def test_csv_has_a_column_for_each_name():
    assert csv_text([{"a": 1}, {"a": None, "b": "x,y"}]) == 'a,b\r\n1,\r\n,"x,y"\r\n'
