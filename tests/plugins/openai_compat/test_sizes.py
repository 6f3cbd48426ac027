"""``size`` becomes ``aspect_ratio`` as documented."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from impasto_plugins.openai_compat.sizes import checked_size, nearest_ratio

RATIOS = ("21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21")


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        ("1024x1024", "1:1"),
        ("512x512", "1:1"),
        ("256x256", "1:1"),
        ("1792x1024", "16:9"),
        ("1024x1792", "9:16"),
        ("1536x1024", "3:2"),
        ("1024x1536", "2:3"),
        ("1920x1080", "16:9"),
        ("2x3", "2:3"),
        ("2100x900", "21:9"),
    ],
)
def test_documented_and_exact_sizes_need_no_warning(size: str, ratio: str) -> None:
    assert nearest_ratio(size, RATIOS) == (ratio, True)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [("1344x768", "16:9"), ("1000x1001", "1:1"), ("99999x1", "21:9"), ("1x99999", "9:21"), ("1280x1024", "5:4")],
)
def test_other_sizes_take_the_nearest(size: str, ratio: str) -> None:
    nearest = nearest_ratio(size, RATIOS)
    assert nearest is not None
    assert nearest[0] == ratio
    width, height = map(int, size.split("x"))
    assert nearest[1] == (Fraction(width, height) == Fraction(ratio.replace(":", "/")))


@given(st.integers(1, 99_999), st.integers(1, 99_999))
def test_no_listed_ratio_is_nearer_by_logarithm(width: int, height: int) -> None:
    nearest = nearest_ratio(f"{width}x{height}", RATIOS)
    assert nearest is not None

    def distance(ratio: str) -> float:
        return abs(math.log(width / height / float(Fraction(ratio.replace(":", "/")))))

    if f"{width}x{height}" not in ("1792x1024", "1024x1792"):
        assert distance(nearest[0]) <= min(map(distance, RATIOS)) + 1e-9


@pytest.mark.parametrize(
    ("size", "ratio"), [("1792x1024", "16x9"), ("1024x1024", "1x1"), ("1536x1024", "3x2"), ("1024x1792", "9x16")]
)
def test_ratios_may_be_written_with_an_x(size: str, ratio: str) -> None:
    assert nearest_ratio(size, ("1x1", "3x2", "16x9", "9x16")) == (ratio, True)


def test_a_documented_size_whose_ratio_a_model_does_not_list_takes_the_nearest() -> None:
    assert nearest_ratio("1792x1024", ("1:1", "3:2")) == ("3:2", False)
    assert nearest_ratio("1024x1024", ()) is None
    assert nearest_ratio("1024x1024", ("wide", "tall")) is None


@pytest.mark.parametrize(
    "size",
    [
        "", "1024", "x", "1024x", "x1024", "1024X1024", "1024\u00d71024",
        "\uff11\uff10\uff12\uff14x1024", "1024x1024 ", " 1024x1024",
        "1024x1024\n", "1024x1024x3", "-1x1", "+1x1", "1.5x1", "1e3x1", "0x0", "0x1024", "1024x0", "01x1",
        "Auto", "100000x1", f"{10**9}x{10**9}", "9" * 5000 + "x1",
        1024, 10**9, True, 1.5, b"1024x1024", ["1024x1024"], {},
    ],
)  # fmt: skip
def test_malformed_sizes_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        checked_size(size)


def test_auto_asks_for_nothing() -> None:
    assert checked_size("auto") is None
