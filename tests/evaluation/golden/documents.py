"""Documents in the columns of the benchmarks, invented, and the answers that golden vectors are made of."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any


def _mmbench(index: int, question: str, answer: str, options: list[str], hint: str = "nan") -> dict[str, Any]:
    doc = {"index": index, "question": question, "answer": answer, "hint": hint, "category": "object", "source": "x"}
    return doc | {"L2-category": "coarse", "split": "dev"} | dict(zip("ABCD", options, strict=True))


def _vqav2(question: str, answers: list[str]) -> dict[str, Any]:
    people = [{"answer": text, "answer_confidence": "yes", "answer_id": i + 1} for i, text in enumerate(answers)]
    return {"question": question, "question_id": 1, "answer_type": "other", "answers": people}


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
    "mme": [
        {
            "question": "Is there a dog? Please answer yes or no.",
            "question_id": "a.png",
            "answer": "Yes",
            "category": "OCR",
        },
        {
            "question": " Is it a cat?  Please answer yes or no. ",
            "question_id": "a.png",
            "answer": "No",
            "category": "OCR",
        },
        {"question": "2 + 2 = 4?", "question_id": "n.png", "answer": "Yes", "category": "numerical_calculation"},
        {"question": "2 + 2 = 5?", "question_id": "n.png", "answer": "No", "category": "numerical_calculation"},
        {"question": "a pole?", "question_id": "a.png", "answer": "Yes", "category": "position"},
        {"question": "a dog?", "question_id": "a.png", "answer": "No", "category": "position"},
    ],
    "mmbench": [
        _mmbench(7, "What is it?", "B", ["iron", "wood", "stone", "glass"], hint="It is brown."),
        _mmbench(1_000_007, "What is it?", "A", ["wood", "stone", "glass", "iron"], hint="It is brown."),
        _mmbench(2_000_007, "What is it?", "D", ["stone", "glass", "iron", "wood"], hint="It is brown."),
        _mmbench(8, "Which?", "A", ["Rembrandt", "van Eyck", "nan", "nan"]),
        _mmbench(1_000_008, "Which?", "B", ["van Eyck", "Rembrandt", "nan", "nan"]),
        _mmbench(9, "Which one of the two or three?", "C", ["a yes", "no", "A stop sign", "nan"]),
    ],
    "vqav2": [
        _vqav2("Is it stop?", ["stop", "Stop.", "a stop", "stop", "STOP sign", "stop sign", "yes", "s t o p", "", "x"]),
        _vqav2("How many?", ["two", "2", "2", "two ", "2.0", "2,000", "2000", "2 000", "ten", "10"]),
        _vqav2("Joe's?", ["joe's", "joe's", "joes", "Joe's", "joe s", "hes", "he's", "don't", "dont", "wont"]),
        _vqav2("time?", ["10:10", "10:10", "10/10", "10-10", "10 - 10", "(10)", "1,000-10", "1,000 10", "$10", "10?"]),
    ],
    "vizwiz": [
        {
            "question": "what is THIS? it",
            "question_id": "v1",
            "category": "unanswerable",
            "answers": ["unanswerable"] * 5 + ["Unanswerable.", "unsuitable", "a stop sign", "stop sign", "yes"],
        },
        {
            "question": "Color?",
            "question_id": "v2",
            "category": "other",
            "answers": ["t-shirt", "tshirt", "the t shirt", "2", "two", "2.0", "joe's", "joes", "hes", "red, white"],
        },
        {
            "question": "",
            "question_id": "v3",
            "answers": ["none", "0", "zero", "10%", "10 %", "$10"],
            "category": "number",
        },
    ],
    "seedbench": [
        {
            "question": "What is it?",
            "choice_a": "iron",
            "choice_b": "wood",
            "choice_c": "a",
            "choice_d": "b",
            "answer": "B",
            "data_type": "image",
            "question_id": "1",
        },
        {
            "question": "Which of these?\nLook.",
            "choice_a": "yes",
            "choice_b": "no",
            "choice_c": "2",
            "choice_d": "2.0",
            "answer": "A",
            "data_type": "image",
            "question_id": "2",
        },
        {
            "question": "Where?",
            "choice_a": "a",
            "choice_b": "b",
            "choice_c": "c",
            "choice_d": "d",
            "answer": "D",
            "data_type": "image",
            "question_id": "3",
        },
    ],
    "chartqa": [
        {"question": "How many?", "answer": "23", "type": "human_test"},
        {"question": "What share? ", "answer": "12.5%", "type": "human_test"},
        {"question": "more?", "answer": "Yes", "type": "augmented_test"},
        {"question": "least?", "answer": "0", "type": "augmented_test"},
        {"question": "sum?", "answer": "2,000", "type": "augmented_test"},
        {"question": "change?", "answer": "-0.5", "type": "human_test"},
        {"question": "which?", "answer": "Minor third, North", "type": "human_test"},
    ],
    "docvqa": [
        {"question": "Total?", "answers": ["$ 12.50", "12.50"], "questionId": "1"},
        {"question": "Who wrote it? ", "answers": ["Jan  van Eyck", "van Eyck"], "questionId": "2"},
        {"question": "date", "answers": ["January 12,\n1999"], "questionId": "3"},
        {"question": "straße", "answers": ["Große Straße", "a"], "questionId": "4"},
    ],
}

# Rows of RefCOCO with the sizes of their pictures; the harness makes a document of each expression.
REFERRING: list[dict[str, Any]] = [
    {
        "question_id": "1",
        "answer": ["left dog", "the dog that sleeps"],
        "bbox": [10.0, 20.0, 30.0, 40.0],
        "size": [100, 80],
    },
    {"question_id": "2", "answer": ["man in red"], "bbox": [103.93, 299.99, 134.22, 177.42], "size": [427, 640]},
    {"question_id": "3", "answer": ["all", "it"], "bbox": [0, 0, 64, 48], "size": [64, 48]},
]

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


def boxes(box: list[float], seed: str) -> list[str]:
    """Answers with boxes near the right one (left, top, right, bottom in fractions), and things that are none."""
    rng = random.Random(seed)
    near = [
        [round(edge + rng.gauss(0, spread), 3) for edge in box] for spread in (0, 0.01, 0.05, 0.1) for _ in range(12)
    ]
    left, top, right, bottom = box
    half = [
        [left, top, (left + right) / 2, bottom],
        [left, top, right, (top + bottom) / 2],
        [left, top, right, bottom * 2],
    ]
    odd = [
        [right, bottom, left, top],
        [left, top, left, top],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [-1, -1, 2, 2],
        [9, 9, 10, 10],
    ]
    listed = [str(numbers) for numbers in [*near, *half, *odd]]
    first = str([round(edge, 3) for edge in box])
    dressed = [
        f"It is {first}.",
        f"[{first}]",
        f"{first} or [0, 0, 1, 1]",
        f"[0, 0, 1, 1], {first}",
        first.replace(",", " ,"),
    ]
    dressed += [
        first.replace(", ", ","),
        first.replace("[", "("),
        first.strip("[]"),
        first.replace("[", "[ "),
        f"```{first}```",
    ]
    none = [
        "",
        "[]",
        "[0.1, 0.2, 0.3]",
        "[.1, .2, .3, .4]",
        "[1e-1, 0.2, 0.3, 0.4]",
        "[0.1, 0.2, 0.3, 0.4, 0.5]",
        "no box",
    ]
    return list(dict.fromkeys([*listed, *dressed, *none]))


def _right(doc: dict[str, Any]) -> Iterable[str]:
    value = doc.get("answers", doc.get("answer"))
    options = doc.get("choices") or doc.get("options")
    if isinstance(options, list):
        return ["ABCDE"[int(value)], options[int(value)]]
    if "A" in doc or "choice_a" in doc:
        return [value, doc.get(value) or doc[f"choice_{value.lower()}"]]
    if isinstance(value, list):
        return [item["answer"] if isinstance(item, dict) else item for item in value]
    return [value]


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
