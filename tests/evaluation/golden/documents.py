"""Documents in the columns of the seven benchmarks, invented, and the answers that golden vectors are made of."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

DOCUMENTS: dict[str, list[dict[str, Any]]] = {
    "pope": [
        {"question": "Is there a dog in the image?", "question_id": "1", "answer": "yes", "category": "random"},
        {
            "question": "  Is there a snowboard in the image? \n",
            "question_id": "2",
            "answer": "no",
            "category": "popular",
        },
        {"question": "Is there a café in the image?", "question_id": "3", "answer": " Yes", "category": "adversarial"},
    ],
    "gqa": [
        {"question": "Is the sky blue?", "imageId": "n1", "answer": "yes", "types": {"structural": "verify"}},
        {"question": "what is on the table? ", "imageId": "n2", "answer": "coffee table", "types": None},
        {"question": "Who wears the t-shirt?", "imageId": "n3", "answer": "T-shirt"},
        {"question": "How many?", "imageId": "n4", "answer": "1,000.5"},
    ],
    "scienceqa": [
        {
            "question": "Which is it?",
            "choices": ["iron", "wood", "a stone."],
            "answer": 1,
            "hint": "",
            "subject": "natural",
        },
        {"question": "Which of these?\nLook.", "choices": ["yes", "no"], "answer": 0, "hint": "It rains.\nA lot."},
        {"question": "Where?", "choices": ["a", "b", "c", "d", "e"], "answer": 4, "hint": "  "},
    ],
    "ai2d": [
        {"question": "What eats the frog?", "options": ["hawk", "grass", "fly", "sun"], "answer": "0"},
        {"question": "Which is B?", "options": ["A", "C", "D", "B"], "answer": "3"},
        {"question": "how many ?", "options": ["1", "2"], "answer": 1},
    ],
    "textvqa": [
        {
            "question": "what does the NASA sign say?",
            "question_id": 1,
            "answers": [
                "stop",
                "stop",
                "Stop.",
                "a stop",
                "the stop sign",
                "stop sign",
                "yes",
                "unanswerable",
                "s t o p",
                "",
            ],
            "ocr_tokens": ["STOP", "NASA,", "é"],
        },
        {
            "question": "How many?",
            "question_id": 2,
            "answers": ["two", "2", "2", "two ", "2.0", "2,000", "2000", "twelve", "ten", "10"],
            "ocr_tokens": [],
        },
        {
            "question": "whose shop is it? Joe's?",
            "question_id": 3,
            "answers": ["joe's", "joe's", "joes", "Joe's", "joe s", "hes", "he's", "don't", "dont", "wont"],
            "ocr_tokens": ["JOE'S"],
        },
        {
            "question": "WHAT IS THE TIME?",
            "question_id": 4,
            "answers": ["10:10", "10:10", "10/10", "10-10", "10 - 10", "(10)", "10.10", "10 .10", "$10", "10%"],
            "ocr_tokens": ["10", ":", "10"],
        },
        {
            "question": "which site?",
            "question_id": 5,
            "answers": ["www.e-mail.com"] * 3 + ["www.email.com"] * 3 + ["the"] * 2 + ["none", "one a"],
            "ocr_tokens": ["www.e-mail.com"],
        },
        {"question": "only one?", "question_id": 6, "answers": ["somebody'd", "y'allll"], "ocr_tokens": ["x"]},
    ],
    "ocrbench": [
        {
            "question": "what is written? ",
            "answer": ["CENTRE"],
            "dataset": "IIIT5K",
            "question_type": "Regular Text Recognition",
        },
        {
            "question": "Write out the expression",
            "answer": ["\\frac { A } { b }\n+ C", "x ^ { 2 }"],
            "dataset": "HME100k",
            "question_type": "Handwritten Mathematical Expression Recognition",
        },
        {
            "question": "total?",
            "answer": ["$ 12.50", "12.50"],
            "dataset": "SROIE",
            "question_type": "Key Information Extraction",
        },
        {
            "question": "什么字?",
            "answer": ["ＡＢＣ１２３！", "北京　路"],
            "dataset": "ReCTS",
            "question_type": "Scene Text-centric VQA",
        },
        {"question": "line?", "answer": ["two\nlines "], "dataset": "DocVQA", "question_type": "Doc-oriented VQA"},
        {"question": "digits?", "answer": "0800 12", "dataset": "ORAND", "question_type": "Digit String Recognition"},
    ],
    "mmmu": [
        {
            "id": "validation_Art_Theory_12",
            "question": "<image 1> Who painted this?",
            "options": "['Jan van Eyck', 'Rembrandt', \"Vermeer's pupil\", 'None of the above']",
            "answer": "B",
            "question_type": "multiple-choice",
        },
        {
            "id": "validation_Math_3",
            "question": "Compare <image 2> with <image 1>, and again <image 2>.",
            "options": "['<image 3>', '<image 4>', '$6.50']",
            "answer": "C",
            "question_type": "multiple-choice",
        },
        {
            "id": "validation_Economics_7",
            "question": "A is to B as <image 1>",
            "options": "['A', 'a b', 'B and A', 'DNA']",
            "answer": "A",
            "question_type": "multiple-choice",
        },
        {
            "id": "validation_Electronics_1",
            "question": "The current in <image 1>?",
            "options": "[]",
            "answer": "23",
            "question_type": "open",
        },
        {
            "id": "validation_Physics_2",
            "question": "<image 7>, <image 2>",
            "options": "[]",
            "answer": "1,234.567",
            "question_type": "open",
        },
        {
            "id": "validation_Music_30",
            "question": "Name the interval <image 1>",
            "options": "[]",
            "answer": "Minor third",
            "question_type": "open",
        },
        {"id": "validation_Math_9", "question": "<image 1>", "options": "[]", "answer": "x", "question_type": "open"},
        {
            "id": "test_Chemistry_4",
            "question": "<image 1>",
            "options": "[]",
            "answer": ["-0.5", "minus half"],
            "question_type": "open",
        },
    ],
}

ANYTHING = (
    "", " ", "\n", ".", "..", "?!", "'", "\"", "A", "a", "B", "b", "C", "D", "E", "A.", "a.", "B.", "(A)", "(B)",
    "(b)", "A)", "A. hawk", "B. wood", "C: $6.50", "D.", "E. e", "A.B", "AB", " A", "\tB. x", "B .", "É.", "1.", "É",
    "yes", "Yes", "YES", "yes.", "Yes, there is.", "no", "No", "NO!", "no dog", "neither", "yes no", "y", "ｙｅｓ",
    "yes\n", "The answer is (A).", "The answer is B", "Answer: C", "I think it is A or B",
    "Both A and B are right, so B", "(A) is wrong and (C) is right, (B) too", "A B C D", "D C B A",
    "Between A and B, I would choose A", "A. B. C.", "It must have been painted by Rembrandt or by Vermeer's pupil",
    "none of the above is what I would say here", "jan van eyck painted this picture I believe", "DNA",
    "the DNA test", "Plan B", "vitamin C deficiency", "$6.50 it is", "It was the price of $6.50 for all of it",
    "<image 3>", "the answer could be 23 or 24", "23", "23.0", "22.999", "-23", "The answer is 23.", "so it is 23",
    "x = 23", "x = 5\ny = 23", "= 23\nyes", "23 A", "1,234.57", "1234.567", "1.23457e3", "1234.57 m", "is 1,234.566",
    "-0.5", "-.5", "- 0.5", "minus half", "Minus Half of it", "nan", "inf", "1e999", "1_000", "minor third",
    "A minor third.", "It is a minor\nthird", "minor  third", "The result is a Minor Third indeed", "final answer x",
    "x", " x ", "ax", "a x b", "xylophone", "answer is: x", "is is is", "is :", "thus .", "stop", "Stop", "STOP!",
    "the stop", "a an the", "stop.", "s.t.o.p", "stop, sign", "the stop sign", "stop-sign", "stop/sign",
    "stop - sign", "two", "2", "2.", "2.0", "2,000", "2 000", "ten", "none", "None", "zero", "10:10", "10/10",
    "10 10", "10.10", "$10", "10 %", "joe's", "joes", "JOE'S", "joe 's", "hes", "he's", "don't", "dont", "won't",
    "wont", "somebody'd", "somebodyd", "y'allll", "yall'll", "y'all'll", "www.e-mail.com", "www.e mail.com",
    "www.email.com", "a........................................", "b...............................", "coffee table",
    "coffeetable", "Coffee-Table", "coffee  table", "the coffee table", "tshirt", "T-Shirt", "1000.5", "10005",
    "1,000.5", ". yes", "ye's", "centre", "CENTRE", "the word is Centre.", "cent re", "C E N T R E", "\\frac{A}{b}+C",
    "\\frac{a}{b}+c", "\\frac { A }\n{ b } + C", "x^{2}", "so x ^ { 2 }.", "X^{2}", "12.50", "$12.50", "$ 12.50",
    "total 12,50", "ABC123!", "abc123!", "ＡＢＣ１２３！", "ａｂｃ１２３！",
    "北京 路", "\u5317\u4eac\u3000\u8def", "北京路", "two lines",
    "two\nlines", "two\r\nlines", "080012", "0800 12", "0800\t12", "0800\n12", "naïve", "NAÏVE", "ß", "ﬁ", "🙂",
    "yes 🙂", "\u200byes", "yes\u00a0", "\u3000no\u3000", "…", "“yes”", "½", "２", "２３", "x²", "a\tb", "a\\nb",
)  # fmt: skip
_PIECES = (
    "A", "B", "C", "(A)", "(B)", "A.", "B.", "a", "the", "is", "so", "=", "answer", "answer is", "could be", "final",
    "\n", " ", ".", ",", "?", "'", "'s", "-", "/", "(", ")", "23", "1,234.567", "-0.5", "2", "two", "ten", "1e3",
    ".5", "3.", "x", "stop", "sign", "joe", "dont", "couldntve", "yes", "no", "Rembrandt", "minor third", "é", "$",
    "%", "\t", ":", ";", "!",
)  # fmt: skip


def answers(task: str, doc: dict[str, Any]) -> list[str]:
    """Some hundred answers to a document, each once: the right ones in many guises, the tricky and the random ones."""
    right = [one for one in _right(doc) if one]
    dressed = [guise for one in dict.fromkeys(right) for guise in _guises(one)]
    rng = random.Random(f"{task} {doc.get('question')}")
    fuzz = ["".join(_joined(rng)) for _ in range(60)]
    return list(dict.fromkeys((*ANYTHING, *dressed, *fuzz)))


def _right(doc: dict[str, Any]) -> Iterable[str]:
    value = doc.get("answers", doc.get("answer"))
    options = doc.get("choices") or doc.get("options")
    if isinstance(options, list):
        return ["ABCDE"[int(value)], options[int(value)]]
    return value if isinstance(value, list) else [value]


def _guises(one: str) -> list[str]:
    return [
        *(
            one,
            one.upper(),
            one.lower(),
            one.title(),
            one.swapcase(),
            f" {one} ",
            f"{one}.",
            f"{one}!",
            f"{one},",
            f"({one})",
        ),
        *(
            f"The answer is {one}.",
            f"{one}\n",
            f"\n{one}",
            f"{one} {one}",
            f"'{one}'",
            f"**{one}**",
            f"not {one}",
            f"{one}?",
        ),
        *(one.replace(" ", ""), one.replace("\n", " "), one[:-1], one[::-1], f"Answer: {one}\nbecause", f"x{one}"),
    ]


def _joined(rng: random.Random) -> Iterable[str]:
    for _ in range(rng.randint(1, 12)):
        yield rng.choice(_PIECES)
        yield rng.choice(("", " ", " "))
