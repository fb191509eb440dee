"""Results of every kind, for the forms that a summary takes."""

import pytest
from reproductions import TOLERANCE, cell, result

from swinir.reproduce.plan import Missing
from swinir.reproduce.published import TABLES
from swinir.reproduce.results import Failure
from swinir.reproduce.summary import Summary


@pytest.fixture(scope="session")
def summary():
    """One cell reproduced, explained, differing, of another network and failed; three without images."""
    results = (
        result("table2", "Set5", 4),
        result("table2", "Set5", 4, data="DF2K", of="DF2K", psnr=-0.5),
        result("table2", "Manga109", 2, psnr=-0.1),
        result("table3", "Set14", 2, psnr=-0.9, published_network=False),
    )
    failures = (Failure(cell("table3", "Set5", 3), "<script>throw 1</script> | wrong"),)
    missing = (Missing("set Urban100 in testsets", "swinir data prepare Urban100", 3),)
    tables = (TABLES["table2"], TABLES["table3"], TABLES["table4"])
    return Summary("all", tables, results, failures, missing, TOLERANCE, {"torch": "2.6", "device": "cpu"}, 3)
