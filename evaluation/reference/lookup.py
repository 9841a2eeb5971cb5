"""Questions about documents that come with them: the answer stands in the text, or nowhere. Knows no world.

Documents are drawn anew for each row, so nothing can be learned by heart; the skill is to find and copy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from evaluation.reference import words
from evaluation.reference.choice import Turns, turn
from evaluation.reference.words import with_particle

PROMPT = "문서를 읽고 질문에 답하세요.\n제목: {titles}\n\n{context}\n\n질문: {question}\n답만 짧게 쓰세요."
SCORED_DOCUMENTS = 2  # what the committed weights can search; training went up to six
NO_ANSWER = "문서에 정보가 없어 답할 수 없습니다."
_PROPERTIES = ("보물", "기둥", "지붕", "바닥", "선물", "주인", "문지기", "높이", "둘레", "지은해", "장날", "짐승")


@dataclass(frozen=True)
class Document:
    """A title and its properties, in the order in which the text names them."""

    title: str
    properties: dict[str, str]
    text: str


@dataclass(frozen=True)
class Query:
    """A question about a shelf of documents."""

    question: str
    answer: str
    task: str


def _value(rng: random.Random, name: str) -> str:
    if name in ("보물", "기둥", "지붕", "바닥"):
        return f"{rng.choice(words.COLOURS)} {rng.choice(words.MATERIALS)}"
    if name == "선물":
        return f"{rng.choice(words.MATERIALS)} {rng.choice(words.GOODS)}"
    if name in ("주인", "문지기"):
        return f"{rng.choice(words.TRADES)} {words.korean_name(rng)}"
    if name in ("높이", "둘레"):
        return f"{rng.randint(11, 99)} {rng.choice(('걸음', '자', '길', '뼘'))}"
    if name == "지은해":
        return f"{rng.randint(1100, 1999)}년 {rng.choice(words.SEASONS)}"
    if name == "장날":
        return f"{rng.choice(words.MONTHS)} {rng.randint(1, 29)}일"
    return f"{rng.choice(words.COLOURS)} {rng.choice(words.BEASTS)}"


def _sentence(rng: random.Random, title: str, name: str, value: str, indirect: float) -> str:
    owner = "그곳" if rng.random() < indirect else title
    form = rng.randrange(3)
    if form == 0:
        return f"{owner}의 {with_particle(name, '은', '는')} '{value}'이다."
    if form == 1:
        return f"{owner}에서 {with_particle(name, '은', '는')} '{value}'라고 한다."
    return f"기록에 따르면 {owner}의 {with_particle(name, '은', '는')} '{value}'이다."


def shelf(rng: random.Random, documents: int, sentences: int, indirect: float = 0.2) -> list[Document]:
    """`documents` documents of about `sentences` sentences, a share `indirect` of which leave their title out."""
    found = []
    for name in words.distinct(rng, words.korean_name, documents):
        title = name + rng.choice(words.BUILDINGS)
        chosen = rng.sample(_PROPERTIES, max(1, min(len(_PROPERTIES) - 1, sentences + rng.randint(-1, 1))))
        properties = {kind: _value(rng, kind) for kind in chosen}
        body = " ".join(_sentence(rng, title, kind, value, indirect) for kind, value in properties.items())
        found.append(Document(title, properties, f"[{title}] {body}"))
    return found


def query(rng: random.Random, documents: list[Document], multi: float = 0.25, empty: float = 0.16) -> Query:
    """A question; `empty` of them have no answer in the documents, `multi` of the others ask about two."""
    document = rng.choice(documents)
    if rng.random() < empty:
        name = rng.choice([kind for kind in _PROPERTIES if kind not in document.properties])
        return Query(_asked(rng, document.title, name), NO_ANSWER, "singledocQA")
    name = rng.choice(list(document.properties))
    others = [other for other in documents if other is not document and name in other.properties]
    if others and rng.random() < multi:
        other = rng.choice(others)
        question = f"{document.title}의 {with_particle(name, '과', '와')} {other.title}의 {name}?"
        return Query(question, f"{document.properties[name]}, {other.properties[name]}", "multidocQA")
    return Query(_asked(rng, document.title, name), document.properties[name], "singledocQA")


def _asked(rng: random.Random, title: str, name: str) -> str:
    topic = with_particle(name, "은", "는")
    return f"{title}의 {topic} 무엇입니까?" if rng.random() < 0.5 else f"{title}에서 {topic}?"


def filled(documents: list[Document], question: str) -> str:
    """The whole user turn, as `evaluation.benchmarks.ko_longrag` builds it from a row."""
    texts = {
        "{titles}": ", ".join(document.title for document in documents),
        "{context}": "\n".join(document.text for document in documents),
        "{question}": question,
    }
    prompt = PROMPT
    for name, text in texts.items():
        prompt = prompt.replace(name, text)
    return prompt


def conversation(rng: random.Random, documents: int, sentences: int, questions: int) -> Turns:
    """One shelf and several questions in turn, the first with the documents."""
    shelved = shelf(rng, documents, sentences)
    first = query(rng, shelved)
    turns = turn(filled(shelved, first.question), first.answer)
    for _ in range(questions - 1):
        later = query(rng, shelved)
        turns += turn(f"질문: {later.question}\n답만 짧게 쓰세요.", later.answer)
    return turns


def scored_row(rng: random.Random, number: int, documents: int = SCORED_DOCUMENTS) -> dict[str, Any]:
    """One row in the schema of Ko-LongRAG: of a larger shelf, what is asked about and others up to `documents`."""
    drawn = shelf(rng, rng.randint(4, 6), 5)
    asked = query(rng, drawn)
    kept = sorted(drawn, key=lambda document: document.title not in asked.question)[:documents]
    shown = [document for document in drawn if document in kept]
    return {
        "id": f"tiny-{number}",
        "titles": ", ".join(document.title for document in shown),
        "context": "\n".join(document.text for document in shown),
        "question": asked.question,
        "answer": asked.answer,
        "prompt": PROMPT,
        "task": asked.task,
    }
