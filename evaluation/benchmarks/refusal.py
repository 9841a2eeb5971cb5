"""Does a text say that there is no answer to be had? Reads Korean and English; knows no documents and no question.

A refusal is a clause that ends: "알 수 없습니다" is one, "알 수 없는 이유로 중단되었다" is an answer, and so is a text
that goes on after it ("언급되지는 않았지만 1945년입니다").
"""

from __future__ import annotations

import re
import unicodedata

_POLITE = re.compile(r"(?:죄송|미안|유감|아쉽)[가-힣]*만")
# How a clause ends in Korean, in any tone: -습니다, -다, -어요, -음, -네요.
_END = r"(?:습니다|ㅂ니다|다|음|어요|아요|네요|군요|는 것 같[가-힣]*|다고 [가-힣]+)?(?=\s*(?:[.!…\"'”’)]|$))"
_NONE = r"(?:없|부족하|부족합니|존재하지\s*않)"
_CANNOT = (
    r"(?:답|대답|답변|응답|확인|판단|알|찾을|파악|제공|특정)(?:을|를)?\s*(?:드릴|드리기|할|하기)?\s*"
    r"(?:수\s*(?:가\s*|는\s*)?없|어렵|불가능하|불가능합니)"
)
_ABSENT = (
    r"(?:정보|내용|언급|답|정답|답변|근거|설명|기록|단서)(?:이|가|은|는|도)?\s*(?:[가-힣]{1,12}\s+)?" + _NONE,
    r"(?:언급|포함|명시|기재|서술|제공|확인|설명|기록)(?:되어\s*있|되|돼\s*있)(?:지|지는)\s*않(?:았)?",
    r"(?:나와|나타나|적혀|쓰여)\s*있지\s*않",
    r"(?:다루|나오|나타나|드러나|충분하)지\s*않",
    r"찾지\s*못했|확인하지\s*못했",
    r"모르겠|모릅니|모른|몰라",
)
_KOREAN = re.compile(rf"(?:{_CANNOT}|{'|'.join(_ABSENT)}){_END}", re.MULTILINE)
_QUESTION = re.compile(r"(?:답|대답|답변)할 수 없는 (?:질문|문제)(?:입니다|이다|임)")
_WHOLE = re.compile(
    r"\W*(?:(?:답변|확인|판단|응답)\s*불가(?:능)?|(?:정보|근거|내용)\s*부족|(?:해당|정보|(?:정?답|답변)\s*:?)?\s*없(?:음|다|습니다)|n/a|unanswerable"
    r"|none|not (?:found in the documents?|specified|mentioned|stated|provided|available|given)"
    r"|no (?:answer|information)|(?:insufficient|not enough) information|unknown|i (?:do not|don't) know)\W*",
    re.IGNORECASE,
)
_ENGLISH = re.compile(
    r"(?:cannot|can't|could not|not possible to) (?:be )?(?:answer|determine|find|found)"
    r"|(?:does|do|is|are|was|were)(?: not|n't) (?:mention|contain|provide|specif|state|say|include|given|available)"
    r"|there is no (?:information|mention|answer)|(?:insufficient|not enough) information|\bunanswerable\b",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether `text` says that there is no answer to be had."""
    plain = _POLITE.sub(
        "", "\n".join(" ".join(line.split()) for line in unicodedata.normalize("NFC", text).splitlines())
    )
    if _WHOLE.fullmatch(plain):
        return True
    return any(pattern.search(plain) for pattern in (_KOREAN, _QUESTION, _ENGLISH))
