"""The upstream files of prompts that look harmful and are not, and of harmful ones to set beside them."""

from __future__ import annotations

from polyrefuse_data.prompts import categories, readers
from polyrefuse_data.prompts.source import Source

_GITHUB = "https://raw.githubusercontent.com"
XSTEST = f"{_GITHUB}/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
MULTILINGUAL_REFUSAL = f"{_GITHUB}/mainlp/Multilingual-Refusal/985169df2a0b1ba56a95c65d5f60e228f12be4a1"
HARMFULNESS_REFUSAL = (
    f"{_GITHUB}/CHATS-lab/LLMs_Encode_Harmfulness_Refusal_Separately/68da18d9c66f657778de0f17ac2c2a555bb69914"
)
"""Pinned revisions, whose bytes the hashes below are."""

NOT_STATED = "not stated"
"""The licence of a source that states none: nothing is granted beyond what the law allows."""

_XSTEST = (
    "Röttger et al. 2024. XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in Large "
    "Language Models. NAACL. arXiv:2308.01263"
)
_CATQA = (
    "Bhardwaj et al. 2024. Language Models are Homer Simpson! Safety Re-Alignment of Fine-tuned Language "
    "Models through Task Arithmetic. ACL. arXiv:2402.11746"
)
_CATQA_SHA256 = {
    "Adult_Content": "d10a251c6809b406da014a59c2f166f8f05876be3a1a01bf59285a5743b34cc4",
    "Child_Abuse": "f5d6e4fd92d4010660cb660c866b485a609816d632cfe6e055314b81c770f6ef",
    "Economic_Harm": "03512b2e3f79edcbd2d285d9eec4343843ff051f15cc7dfbaedf338cb1a3e204",
    "Fraud_Deception": "7ea757c35cb3beeb9ee1df7d01e2283de20a4b53b7a17ff87e55ab014ba611c6",
    "Hate_Harass_Violence": "35cff407614dcd91c8b00a60c3d8fdc615f442f0495221d9a7079b6da5df986e",
    "Illegal_Activity": "0d437e7e1f4c2fdfd4eef84dbbf08e010610d02494d38f29c813573d0be76f4a",
    "Malware_Viruses": "0d7b077437edf50d49336ffb61b65bf8b295367153c7741b83cb02586f3fcf29",
    "Physical_Harm": "09d9c37fa3a727905764a6bd287fee01042fc902a9eda3e143e2683eb3390141",
    "Political_Campaigning": "4f0afeee435899ddaab8ced699871072207a3ca740355343a7148a61a677f58f",
    "Privacy_Violation_Activity": "09f83d14704a407616376a7071dd025f54f4860b4f5cbbd774ae9c2ffc2f15c8",
    "Tailored_Financial_Advice": "843d39b05bb5607fd1b1a751021eaf7b4fe6a26260ccdf8b86cb25188d92f0e4",
}
"""The files of CatQA, a category each, and their hashes."""


def _xstest(label: str, kind: str) -> Source:
    return Source(
        name=f"xstest_{kind}",
        title=f"XSTest, {kind} prompts",
        label=label,
        file="xstest_prompts.csv",
        path="xstest_prompts.csv",
        sha256="11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
        licence="CC-BY-4.0",
        citation=_XSTEST,
        reader=readers.xstest_reader(kind),
        taxonomy=categories.XSTEST,
        root=XSTEST,
    )


def _catqa(category: str, sha256: str) -> Source:
    # In upstream's file names an underscore stands for the slash of a category, and blanks are blanks.
    keeps_underscores = category in ("Fraud_Deception", "Hate_Harass_Violence")
    upstream = category if keeps_underscores else category.replace("_", " ")
    return Source(
        name=f"catqa_{category.lower()}",
        title=f"CatQA, {category.replace('_', ' ').lower()}",
        label="harmful",
        file=f"catqa_{category}.json",
        path=f"data/catqa_{upstream.replace(' ', '%20')}.json",
        sha256=sha256,
        licence="Apache-2.0",
        citation=_CATQA,
        reader=readers.json_lines_reader("Question", "Category"),
        taxonomy=categories.CATQA,
        root=HARMFULNESS_REFUSAL,
    )


OVER_REFUSAL_SOURCES = (
    _xstest("harmless", "safe"),
    _xstest("harmful", "unsafe"),
    Source(
        name="oktest",
        title="OKTest",
        label="harmless",
        file="oktest.json",
        path="dataset/processed/oktest.json",
        sha256="1fdee6679aeef05b9dca446bcb689af9bbc10b6477c26271a953bc96ea4040a5",
        licence=NOT_STATED,
        citation="Shi et al. 2024. Navigating the OverKill in Large Language Models. ACL. arXiv:2401.17633",
        reader=readers.read_instructions,
        root=MULTILINGUAL_REFUSAL,
    ),
    Source(
        name="or_bench_hard",
        title="OR-Bench hard, test part",
        label="harmless",
        file="or_bench_hard_test.json",
        path="dataset/splits/or_bench_hard_test.json",
        sha256="a5a66718b1f5279b7a96a17d6ad0320f82150cdae03a94a46c60cf90aff0ba12",
        licence="CC-BY-4.0",
        citation="Cui et al. 2025. OR-Bench: An Over-Refusal Benchmark for Large Language Models. ICML. "
        "arXiv:2405.20947",
        reader=readers.read_instructions,
        root=MULTILINGUAL_REFUSAL,
    ),
    *(_catqa(category, sha256) for category, sha256 in _CATQA_SHA256.items()),
    Source(
        name="sorry_bench",
        title="Sorry-Bench, base prompts; gated upstream",
        label="harmful",
        file="sorry-badq.json",
        path="data/sorry-badq.json",
        sha256="0e9bf033ecf80e3b73adfb702e3214de13c74330d7b589880f396fabd99c5072",
        licence="SORRY-Bench dataset agreement",
        citation="Xie et al. 2025. SORRY-Bench: Systematically Evaluating Large Language Model Safety "
        "Refusal. ICLR. arXiv:2406.14598",
        reader=readers.json_lines_reader("bad_q", "category"),
        root=HARMFULNESS_REFUSAL,
        gated=True,
    ),
)
"""The sources of the recipe `over-refusal`, and Sorry-Bench for recipes of one's own."""
