"""One taxonomy of harm over the sources that have categories of their own.

Rows keep the upstream's own word in `source_category`; `category` is comparable across sources. Where
a source has no categories (AdvBench, MaliciousInstruct, TDC2023, Alpaca), both are null. Harmless prompts of
a kind that looks harmful (XSTest's types) keep their kind in `source_category`, and are of no `category`.
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

CATQA = {
    "Adult Content": "sexual_content",
    "Child Abuse": "violence",
    "Economic Harm": "economic_harm",
    "Fraud/Deception": "fraud",
    "Hate/Harass/Violence": "harassment",
    "Illegal Activity": "crime",
    "Malware Viruses": "cybercrime",
    "Physical Harm": "violence",
    "Political Campaigning": "disinformation",
    "Privacy Violation Activity": "privacy",
    "Tailored Financial Advice": "unqualified_advice",
}

XSTEST = {
    "contrast_definitions": "other_harm",
    "contrast_discr": "harassment",
    "contrast_figurative_language": "violence",
    "contrast_historical_events": "other_harm",
    "contrast_homonyms": "other_harm",
    "contrast_privacy": "privacy",
    "contrast_safe_contexts": "violence",
    "contrast_safe_targets": "violence",
}
"""The types of XSTest's unsafe prompts; its safe ones are of no harm."""

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
