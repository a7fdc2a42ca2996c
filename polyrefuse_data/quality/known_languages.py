"""Name the languages that each scoring model knows: those that its encoder was pretrained on.

A model that does not know a language gives it numbers all the same; here it is given none.
"""

from __future__ import annotations

from polyrefuse_data.core.errors import PolyRefuseError


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


XLM_R = _codes(
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi "
    "hr hu hy id is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa "
    "pl ps pt ro ru sa sd si sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"
)
"""Conneau et al. 2020, table 6, without Yoruba; InfoXLM, multilingual-e5 and BGE-M3 start from it."""

AFRICAN = _codes("am ar en fr ha ig ki luo ny om pcm rn rw sn so st sw tw xh yo zu")
"""AfroXLM-R (Alabi et al. 2022) and the pairs that AfriCOMET was fitted to (Wang et al. 2024)."""

MT5 = _codes(
    "af am ar az be bg bn ca ceb co cs cy da de el en eo es et eu fa fi fil fr fy ga gd gl gu ha haw "
    "he hi hmn ht hu hy id ig is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt "
    "my ne nl no ny pa pl ps pt ro ru sd si sk sl sm sn so sq sr st su sv sw ta te tg th tr uk ur uz "
    "vi xh yi yo zh zu"
)
"""mC4 (Xue et al. 2021, table 6)."""

LABSE = (XLM_R - {"br", "om", "ps", "sa"}) | _codes(
    "bo ceb co haw hmn ht ig lb mi mt ny rw sm sn st tg tk tt wo yo zu"
)
"""Feng et al. 2022, appendix: 109 languages, with Yoruba."""

PARAPHRASE = _codes(
    "ar bg ca cs da de el en es et fa fi fr gl gu he hi hr hu hy id it ja ka ko ku lt lv mk mn mr ms "
    "my nb nl pl pt ro ru sk sl sq sr sv th tr uk ur vi zh"
)
"""The parallel data of sentence-transformers' multilingual models (Reimers and Gurevych 2020)."""

KNOWN = {
    "Unbabel/wmt20-comet-qe-da": XLM_R,
    "Unbabel/wmt21-comet-qe-mqm": XLM_R,
    "Unbabel/wmt22-cometkiwi-da": XLM_R,
    "Unbabel/wmt23-cometkiwi-da-xl": XLM_R,
    "Unbabel/wmt23-cometkiwi-da-xxl": XLM_R,
    "masakhane/africomet-qe-stl": AFRICAN,
    "masakhane/africomet-qe-stl-1.1": AFRICAN,
    **{
        f"google/metricx-{year}-{size}-{version}": MT5
        for year, names, version in (("23-qe", "large xl xxl", "v2p0"), ("24-hybrid", "large xl xxl", "v2p6"))
        for size in names.split()
    },
    "sentence-transformers/LaBSE": LABSE,
    **{f"intfloat/multilingual-e5-{size}": XLM_R for size in ("small", "base", "large", "large-instruct")},
    "BAAI/bge-m3": XLM_R,
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": PARAPHRASE,
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2": PARAPHRASE,
    "sentence-transformers/distiluse-base-multilingual-cased-v2": PARAPHRASE,
}
"""Model -> codes of its languages. A model that is not here needs them named on the command line."""


def languages_of(model: str, named: frozenset[str]) -> frozenset[str]:
    """Return the languages of `model`: those `named` by the user, else those of `KNOWN`.

    Raises `PolyRefuseError` where neither says.
    """
    if named or model in KNOWN:
        return named or KNOWN[model]
    raise PolyRefuseError(
        f"'{model}' is not in the table of models, so nothing says which languages it knows; "
        "name them with --model-langs de,fr (or 'all')"
    )
