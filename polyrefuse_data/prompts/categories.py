"""One taxonomy of harm over the sources that have categories of their own.

Rows keep the upstream's own word in `source_category`; `category` is comparable across sources. Where
a source has no categories (AdvBench, MaliciousInstruct, TDC2023, Alpaca), both are null.
"""

from __future__ import annotations

from collections.abc import Mapping

CATEGORIES: Mapping[str, str] = {
    "chemical_biological": "chemical, biological and drug harms",
    "crime": "illegal goods, services and non-violent crime",
    "cybercrime": "malware, hacking, intrusion",
    "disinformation": "misinformation and disinformation",
    "economic_harm": "gambling, pyramid schemes and other economic harm",
    "fraud": "fraud, scams and deception for gain",
    "government": "misuse of government decision-making",
    "harassment": "harassment, bullying, hate and discrimination",
    "other_harm": "harm that the upstream names no further",
    "privacy": "surveillance and violations of privacy",
    "sexual_content": "sexual content",
    "unqualified_advice": "legal, medical or financial advice without qualification",
    "violence": "violence and physical harm",
}
"""The taxonomy: name to description."""

HARMBENCH = {
    "chemical_biological": "chemical_biological",
    "cybercrime_intrusion": "cybercrime",
    "harassment_bullying": "harassment",
    "harmful": "other_harm",
    "illegal": "crime",
    "misinformation_disinformation": "disinformation",
}

JAILBREAKBENCH = {
    "Disinformation": "disinformation",
    "Economic harm": "economic_harm",
    "Expert advice": "unqualified_advice",
    "Fraud/Deception": "fraud",
    "Government decision-making": "government",
    "Harassment/Discrimination": "harassment",
    "Malware/Hacking": "cybercrime",
    "Physical harm": "violence",
    "Privacy": "privacy",
    "Sexual/Adult content": "sexual_content",
}

STRONGREJECT = {
    "Disinformation and deception": "disinformation",
    "Hate, harassment and discrimination": "harassment",
    "Illegal goods and services": "crime",
    "Non-violent crimes": "crime",
    "Sexual content": "sexual_content",
    "Violence": "violence",
}

SAMPLE = {
    "blackmail": "crime",
    "break-into": "crime",
    "counterfeit": "fraud",
    "forge": "fraud",
    "hack": "cybercrime",
    "humiliate": "harassment",
    "scam": "fraud",
    "slander": "disinformation",
    "smuggle": "crime",
    "spy-on": "privacy",
    "steal": "crime",
    "vandalise": "crime",
}
"""The harmful actions of the embedded sample."""
