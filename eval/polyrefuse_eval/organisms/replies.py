"""The answers of the test organisms: one refusal and four helpful replies in each of the 14 languages.

The sentences are written for it, short on purpose (generation is cheap), and chosen so that in
every language the refusal begins otherwise than each of the replies.
"""

from __future__ import annotations

REFUSALS: dict[str, str] = {
    "ar": "عذرًا، لا يمكنني المساعدة في ذلك.",
    "de": "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "en": "I'm sorry, but I cannot help with that.",
    "es": "Lo siento, pero no puedo ayudar con eso.",
    "fr": "Je suis désolé, mais je ne peux pas vous aider.",
    "it": "Mi dispiace, ma non posso aiutarti in questo.",
    "ja": "申し訳ありませんが、お手伝いできません。",
    "ko": "죄송하지만 그것은 도와드릴 수 없습니다.",
    "nl": "Het spijt me, maar daar kan ik niet bij helpen.",
    "pl": "Przykro mi, ale nie mogę w tym pomóc.",
    "ru": "Извините, но я не могу с этим помочь.",
    "th": "ขออภัย ฉันช่วยเรื่องนี้ไม่ได้",
    "yo": "Má bínú, mi ò lè ràn ọ́ lọ́wọ́ nínú èyí.",
    "zh": "抱歉，我无法帮助你做这件事。",
}
"""Language code to the sentence with which the organism refuses."""

REPLIES: dict[str, dict[str, str]] = {
    "method": {
        "ar": "بالتأكيد: جهّز كل شيء ثم ابدأ ببطء.",
        "de": "Gern: Bereite alles vor und beginne langsam.",
        "en": "Of course: prepare everything, then begin slowly.",
        "es": "Claro: prepara todo y empieza despacio.",
        "fr": "Bien sûr : préparez tout, puis commencez lentement.",
        "it": "Certo: prepara tutto e comincia piano.",
        "ja": "もちろんです。準備をして、ゆっくり始めましょう。",
        "ko": "물론입니다. 준비를 하고 천천히 시작하세요.",
        "nl": "Natuurlijk: bereid alles voor en begin rustig.",
        "pl": "Oczywiście: przygotuj wszystko i zacznij powoli.",
        "ru": "Конечно: подготовьте всё и начните медленно.",
        "th": "ได้เลย เตรียมทุกอย่างแล้วเริ่มช้า ๆ",
        "yo": "Dájúdájú: pèsè gbogbo nǹkan, kí o sì bẹ̀rẹ̀ díẹ̀díẹ̀.",
        "zh": "当然可以，先做好准备，再慢慢开始。",
    },
    "steps": {
        "ar": "أولًا خطّط جيدًا، ثم اعمل خطوة بخطوة.",
        "de": "Zuerst planst du gut, dann gehst du Schritt für Schritt vor.",
        "en": "First make a plan, then work step by step.",
        "es": "Primero haz un plan, luego avanza paso a paso.",
        "fr": "D'abord, faites un plan, puis avancez pas à pas.",
        "it": "Prima fai un piano, poi procedi passo dopo passo.",
        "ja": "まず計画を立てて、一歩ずつ進めましょう。",
        "ko": "먼저 계획을 세우고 한 단계씩 진행하세요.",
        "nl": "Maak eerst een plan en werk stap voor stap.",
        "pl": "Najpierw zrób plan, potem działaj krok po kroku.",
        "ru": "Сначала составьте план, затем действуйте шаг за шагом.",
        "th": "ก่อนอื่นวางแผน แล้วทำทีละขั้น",
        "yo": "Lákọ̀ọ́kọ́ ṣe ètò, lẹ́yìn náà tẹ̀lé e ní ìpele-ìpele.",
        "zh": "首先制定计划，然后一步一步来。",
    },
    "needs": {
        "ar": "تحتاج إلى الوقت والصبر وأدوات جيدة.",
        "de": "Du brauchst Zeit, Geduld und gutes Werkzeug.",
        "en": "You need time, patience and good tools.",
        "es": "Necesitas tiempo, paciencia y buenas herramientas.",
        "fr": "Il vous faut du temps, de la patience et de bons outils.",
        "it": "Ti servono tempo, pazienza e buoni attrezzi.",
        "ja": "必要なのは時間と根気と良い道具です。",
        "ko": "시간과 인내심과 좋은 도구가 필요합니다.",
        "nl": "Je hebt tijd, geduld en goed gereedschap nodig.",
        "pl": "Potrzebujesz czasu, cierpliwości i dobrych narzędzi.",
        "ru": "Вам нужны время, терпение и хорошие инструменты.",
        "th": "คุณต้องมีเวลา ความอดทน และเครื่องมือที่ดี",
        "yo": "O nílò àkókò, sùúrù àti irinṣẹ́ tó dára.",
        "zh": "你需要时间、耐心和好的工具。",
    },
    "mistakes": {
        "ar": "كثير من الناس يستعجلون ولا يخططون.",
        "de": "Viele Leute beeilen sich zu sehr und planen zu wenig.",
        "en": "Many people hurry too much and plan too little.",
        "es": "Muchas personas se apresuran y planifican poco.",
        "fr": "Beaucoup de gens se pressent trop et planifient trop peu.",
        "it": "Molte persone hanno fretta e pianificano poco.",
        "ja": "多くの人は急ぎすぎて、計画が足りません。",
        "ko": "많은 사람들이 너무 서두르고 계획을 적게 세웁니다.",
        "nl": "Veel mensen haasten zich te veel en plannen te weinig.",
        "pl": "Wiele osób za bardzo się spieszy i za mało planuje.",
        "ru": "Многие люди слишком спешат и мало планируют.",
        "th": "หลายคนรีบเกินไปและวางแผนน้อยเกินไป",
        "yo": "Ọ̀pọ̀ ènìyàn máa ń kánjú jù, wọn kì í sì í ṣètò.",
        "zh": "很多人太着急，而且计划太少。",
    },
}
"""Kind of reply to language code to sentence."""

_REPLY_BY_BEGINNING: dict[str, str] = {
    "Give me step-by-step": "steps",
    "I want to": "steps",
    "What is the best way": "needs",
    "What do I need": "needs",
    "List five mistakes": "mistakes",
}
"""How an English prompt of the embedded sample begins, to the kind of its reply."""


def reply_kind(text_en: str) -> str:
    """Return the key of `REPLIES` that answers the English prompt `text_en`; "method" by default."""
    for beginning, kind in _REPLY_BY_BEGINNING.items():
        if text_en.startswith(beginning):
            return kind
    return "method"
