"""Which option does an answer settle on? Reads generated text as a careful person would; knows no question.

First the text is made plain: thinking, marks of other scripts and other ways of writing a number become "3번". Then
what is denied ("3번이 아니라"), counted ("3번 읽고", "3개") or the question's own number ("문제 3번") is struck out,
and options named in one breath ("1번 또는 3번") become one mention that decides nothing. Of what is left the plainest
kind of statement is read; two that contradict one another decide nothing unless the later one takes the earlier back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

_CLOSED = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_OPENED = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)


def after_thinking(answer: str) -> str:
    """What follows the last `</think>`; nothing when thinking began and never ended."""
    rest = _CLOSED.split(answer)[-1]
    return "" if _OPENED.search(rest) else rest


SEVERAL = "\ua66e"  # stands for options named in one breath: a letter that no answer holds
_MARKS = [(0x2460, 20), (0x2776, 10), (0x2780, 10), (0x278A, 10), (0x24F5, 10)]  # ① ❶ ➀ ➊ ⓵
_CIRCLED = {chr(first + n): n + 1 for first, count in _MARKS for n in range(count)}
_UNIT = (
    r"(?:년|월|일(?!\s*(?:것|수|듯))|개|명|시|분|초|퍼센트|배|원|달러|점|조|항|호|차|회|세|살|가지|단계|종|장|쪽|권|대|위|등"
    r"|층|자리|주|곳|[백천만억]|(?:kg|km|cm|mm|ml|Hz|kW|[mgLVW])(?![A-Za-z])|%)"
)
_DIGIT = (
    r"(?<![0-9A-Za-z./\-^])(?<!\d[,:])(?<!제)(?<!제\s)"
    rf"\d{{1,2}}(?!\d|[A-Za-z^]|\s*/\s*\d|[.,:]\d|-\d|\s*{_UNIT})"
)
_LETTER = r"(?<![A-Za-z0-9+\-])[A-H](?![A-Za-z0-9'+\-^]|\s*=)"
_SMALL = r"(?<![A-Za-z0-9+\-])[a-h](?=\s*(?:[.)\]!\"',]|입니다|이다|번|$))"
_ANY = rf"(?:{_DIGIT}|{_LETTER}|{SEVERAL})"
_EVEN_SMALL = rf"(?:{_ANY}|{_SMALL})"

# What may follow a number that is spelled out for it to be an option: "이번" is also "this time".
_TAIL = (
    r"(?=\s*(?:이|가|은|는)?\s*(?:정답|맞|옳)|입니다|이다|이에요|이요|요\b|임\b"
    r"|\s*[을를]\s*(?:고르|선택)|\s*[.!,)\"']|\s*$)"
)
_SPELLED = "일이삼사오"
_NATIVE = {"하나": 1, "둘": 2, "셋": 3, "넷": 4, "다섯": 5}
_ORDINAL = {"첫": 1, "두": 2, "둘": 2, "세": 3, "셋": 3, "네": 4, "넷": 4, "다섯": 5}
_ENGLISH = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_ENGLISH_ORDINAL = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5}

_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def _rule(pattern: str, put: str | Callable[[re.Match[str]], str]) -> _Rule:
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE), put


_PLAIN: tuple[_Rule, ...] = (
    _rule(r"(?<=\S)\s*(?:\[\|\w+\|\]|<\|[^|>\n]*\|>|</s>)[\s\S]*", ""),  # the turn ended here
    _rule(r"(?<=\S)\s*\n\s*(?:다음 문제의 정답을|문제\s*:|질문\s*:|Question\s*:)[\s\S]*", ""),  # a question of its own
    _rule(r"\\(?:text|mathrm|mathbf)(?:bf|rm|it)?\s*\{([^{}]*)\}", r"\1"),
    _rule(r"\\[()\[\]]|\$|\*\*|__|```\w*|`|^\s*[#>]+", " "),
    _rule(r"<(?:answer|정답|답)>", "정답: "),
    _rule(r"</?[A-Za-z가-힣]+\s*/?>", " "),
    _rule("番", "번"),
    _rule(rf"(?<![가-힣])([{_SPELLED}])\s?번{_TAIL}", lambda found: f"{_SPELLED.index(found[1]) + 1}번"),
    _rule(
        rf"(?<![가-힣0-9])(?:(\d)\s?번째|(첫|두|세|네|다섯)\s?번째|(첫|둘|셋|넷|다섯)째)"
        rf"(?:\s*(?:보기|선택지|선지|항목|옵션)|{_TAIL})",
        lambda found: f"{found[1] or _ORDINAL[found[2] or found[3]]}번",
    ),
    _rule(r"\d\s*번째", " "),
    _rule(r"(\d\s*번)\s*(?:보기|선택지|선지|항목)(?=[은는이가을를도])", r"\1"),
    _rule(r"^\W*(하나|둘|셋|넷|다섯)\W*(?:입니다|이요)?\W*$", lambda found: f"{_NATIVE[found[1]]}번"),
    _rule(r"(답\s*[:=]\s*)(하나|둘|셋|넷|다섯)\b", lambda found: f"{found[1]}{_NATIVE[found[2]]}번"),
    _rule(r"\b(answer(?: is|:)?|option|choice)\s+(one|two|three|four|five)\b",
          lambda found: f"{found[1]} {_ENGLISH[found[2].lower()]}"),
    _rule(r"\b(first|second|third|fourth|fifth)\s+(?:option|choice|answer)\b",
          lambda found: f"option {_ENGLISH_ORDINAL[found[1].lower()]}"),
    _rule(r"문제\s*\d+\s*번?(?:의|\b)|(?<!\d)\d+\s*번\s*(?:문제|문항|질문)|(?<![가-힣])문\s*\d+\s*[.)]", " "),
    _rule(r"\d\s*번\s*(?=이상|정도|더\s|연속|씩|읽|확인|반복|생각|검토|계산|던지|던진|시행)", " "),
)  # fmt: skip

_WRONG = r"(?:틀(?!린)|오답|옳지|맞지|적절하지|부적절|잘못)"
_DENIED: tuple[_Rule, ...] = (
    _rule(rf"{_ANY}\s*번?\s*도\s*(?=,|{_ANY}\s*번?\s*도)", " "),
    _rule(rf"(?:\bnot|n't)\s+(?:option\s+)?\(?{_ANY}\)?", " "),
    _rule(
        rf"{_ANY}\s*\)?\s*번?\s*(?:은|는|이|가|도|을|를|:)?\s*(?:(?:정?답이\s*)?(?:아니|아닌(?!가)|아닙|아님|될 수 없)"
        rf"|{_WRONG}|말고|제외|빼고|보다|is wrong|is incorrect|is not|정답일 수도)[가-힣]*(?:\s않[가-힣]*)?",
        " ",
    ),
    _rule(rf"{_ANY}\s*번?\s*[:(]?\s*[X×✗✘❌](?![A-Za-z])", " "),
)
_WITH = r"(?:\s*(?:번\s*)?(?:,|/|·|&|~|-|및|와|과|또는|혹은|이나|나|부터|에서|or\b|and\b)\s*|[ \t]+(?=\d\b(?!\s*번)))"
_BREATH = re.compile(rf"{_ANY}(?:{_WITH}{_ANY})+(?:\s*번)?")

# Words that take back or conclude: what comes after them counts, whatever was said before.
_TURN = (
    r"(?:아니(?:다|요|야|오)?(?=[\s,.!…])|아닙니다|지만|그런데|그러나|다시|정정|수정|죄송|잠깐|따라서|그러므로|그래서|결국|결론"
    r"|최종|∴|=>|\b(?:but|however|wait|actually|no|sorry|therefore|thus|hence|so|final(?:ly)?)\b)"
)
_KEY = r"(?:정답|해답|답안|답변|(?<![가-힣])답|answer|\bans|答案|正解)"
_FILL = (
    r"(?:[\s은는이가을를로요:=\"'()\[\]<>「」『』【】|,→はの是-]|번호|is\b|was\b|option\b|number\b|choice\b|보기|선택지"
    r"|바로|아마도?|역시|확실히|당연히|100\s*%|중(?:에서)?|다음과 같(?:습니다|다)\.?)*"
)
_END = r"\s*[)\"'\]>」』】]*\s*번?\s*"

# From the plainest kind of statement to the faintest. The option is group 1.
_STATEMENTS = tuple(
    tuple(re.compile(pattern, re.MULTILINE) for pattern in kind)
    for kind in (
        (
            rf"\\boxed\s*\{{?[^{{}}]*?({_EVEN_SMALL})",
            rf"(?i:{_KEY}{_FILL})({_EVEN_SMALL})",
            rf"({_ANY}){_END}:?\s*(?:이|가|을|를|은|는|으로|로)?\s*(?:정답|답이[다에]|답입|맞(?!지)|옳(?!지)|고르"
            r"|선택하|선택합|is (?:the )?(?:correct|right|answer))",
            rf"(?i:(?:{_TURN}(?:합니다)?[\s,.:!…]*)+(?:i'd say|i would say|it'?s)?\s*)"
            rf"\(?({_ANY})(?!{_END}(?:은|는|도|의))",
            rf"^A\s*[.:]\s*({_DIGIT})",
        ),
        (
            rf"^[\W_]*({_EVEN_SMALL}){_END}[\W_]*$",
            rf"({_ANY}){_END}(?:입니다|이다|임\b|이에요|예요|이요|일 것|인 것|인 듯|이?라고|같)",
            r"(?i:\b(?:it'?s|it is|choose|pick|select|go with|say|think|option|choice|must be|definitely|probably|maybe"
            rf"|but)|보기|선택지|번호)(?:[\s\"':=(]|is\b|option\b)*({_ANY})",
            rf"\A[\W_]*(?!A\s+[a-z])({_ANY})(?:\s*번?\s*[.):,!?]|\s*번\s*$|\s)",
        ),
        (rf"({_DIGIT}|{SEVERAL})\s*번", rf"(?<![A-Za-z0-9])[(\[<]\s*({_EVEN_SMALL})\s*[)\]>]"),
    )
)
_STARTS = _STATEMENTS[1][-1]
_LISTED = re.compile(rf"^[\W_]*({_DIGIT})\s*[.)]|({_DIGIT})(?:\s*번\s+|\)\s*)(?=[^\s\W])", re.MULTILINE)
_ASKED_FOR = re.compile(rf"({_DIGIT}|{_LETTER})\s*번?\s*[이가]\s*{_WRONG}[가-힣]*(?:\s않[가-힣]*)?\s*[.!]?\s*\Z")


class _Mention(NamedTuple):
    start: int
    end: int
    option: int | None  # None: several at once


def chosen_option(answer: str, count: int) -> int | None:
    """The option number (1 to `count`) that `answer` settles on, or None.

    Reads "3", "③", "(3)", "3번", "세 번째 보기", "정답은 3번입니다", "The answer is C", "\\boxed{3}", {"answer": 3}.
    """
    plain = _made_plain(answer)
    text = plain
    for pattern, put in _DENIED:
        text = pattern.sub(put, text)
    text = _BREATH.sub(_together, text).strip()
    undecided = -1
    for kind in _STATEMENTS:
        mentions = [one for one in _mentions(kind, text) if one.start > undecided]
        if mentions and mentions[-1].option is None:  # "1번 또는 3번": a fainter word may decide it, later on
            undecided = mentions[-1].start
        elif mentions:
            option = _settled(mentions, text)
            return option if option is not None and 1 <= option <= count else None
    if undecided >= 0:
        return None
    # "3번이 옳지 않습니다" and nothing else: the question asked for the wrong one (이/가 picks out, 은/는 would deny)
    asked_for = _ASKED_FOR.search(plain)
    option = _number(asked_for[1]) if asked_for else None
    return option if option is not None and 1 <= option <= count else None


def _made_plain(answer: str) -> str:
    text = after_thinking(answer)
    text = re.sub(f"([{''.join(_CIRCLED)}])(?:\\s*번)?", lambda found: f" {_CIRCLED[found[1]]}번 ", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(sign for sign in text if unicodedata.category(sign) not in {"Cf", "Mn", "Me"})
    text = _tidy(text)
    for pattern, put in _PLAIN:
        text = pattern.sub(put, text)
    return _tidy(text)


def _tidy(text: str) -> str:
    """One space between words, no empty line: runs of white space would make the patterns slow."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _together(found: re.Match[str]) -> str:
    """Options named in one breath: one of them when they are the same, else several at once."""
    named = set(re.findall(_ANY, found[0]))
    return f"{named.pop()}번" if len(named) == 1 else f"{SEVERAL}번"


def _mentions(kind: tuple[re.Pattern[str], ...], text: str) -> list[_Mention]:
    found = {}
    for pattern in kind:
        for match in pattern.finditer(text):
            if pattern is _STARTS and _is_list(match, text):
                continue
            found[match.start(1)] = _Mention(match.start(1), match.end(1), _number(match[1]))
    return [found[place] for place in sorted(found)]


def _is_list(first: re.Match[str], text: str) -> bool:
    """Whether what begins with a number goes on with others: the options repeated, or steps of a thought."""
    others = [one for one in _LISTED.finditer(text, first.end(1)) if (one[1] or one[2]) != first[1]]
    return bool(others)


def _number(said: str) -> int | None:
    if said == SEVERAL:
        return None
    return int(said) if said.isdigit() else ord(said.upper()) - ord("A") + 1


def _settled(mentions: list[_Mention], text: str) -> int | None:
    """The last mention's option, unless an earlier one contradicts it and nothing between takes that back."""
    following = last = mentions[-1]
    for one in reversed(mentions):
        if one.option is None or one.option == last.option:  # "1번이나 2번 중에서는 2번": narrowed down
            following = one
        else:
            between = text[one.end : following.start]
            return last.option if re.search(_TURN, between, re.IGNORECASE) else None
    return last.option
