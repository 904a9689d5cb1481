"""Text in Markdown that stays text."""

import pytest

from monai_unetpp.reporting.markdown import code, escape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("a\nb\r\nc", "a b c"),
        ("`x`", r"\`x\`"),
        ("<script>", "&lt;script&gt;"),
        ("[a](http://b)", r"\[a\](http://b)"),
        ("# *a* _b_ ~~c~~", r"\# \*a\* \_b\_ \~\~c\~\~"),
        ("plain 1.5 %", "plain 1.5 %"),
    ],
)
def test_markup_becomes_text(text, expected):
    assert escape(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("a``b", "``` a``b ```"), ("`a\nb", "`` `a b ``")]
)
def test_code_may_hold_its_own_mark(text, expected):
    assert code(text) == expected
