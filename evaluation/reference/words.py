"""Words of the made-up world. Knows nothing of facts or tasks; every list is a plain pool to draw from."""

from __future__ import annotations

import random
from collections.abc import Callable


def _list(text: str) -> list[str]:
    return text.split()


FIRST = list("가나다라마바사아자차하노도로모보소오조호구누두루무부수우주후기니디리미비시이지히")
LAST = list("람솔온빛결담늘별샘울린찬든길벗돌들랑름설봄얼향단롱문봉송중총국눈술물는붓숲찰짓")
FIRST_EN = _list("ba da fa ga ka la ma na pa ra sa ta va bo do go ko lo mo no po ro so to ve de ke le me ne")
LAST_EN = _list("rin dal mos ten lus var kel nor gam sil tor ben dur fen lim pas ros wen zan hul")

COLOURS = _list("붉은 푸른 검은 하얀 노란 초록 자주 금빛 은빛 잿빛 분홍 남색")
MATERIALS = _list(
    "구리 소금 유리 비단 호박 진주 청동 상아 옥돌 가죽 참나무 대나무 석탄 모래 밀랍 양털 납 수정 화강암 점토"
)
GOODS = _list(
    "꿀 차 후추 종이 먹 등잔 거울 그물 항아리 돗자리 빗 부채 칼 방울 북 피리 우산 신발 모자 담요 촛대 바구니 "
    "단추 실타래 물감 향로 자물쇠 바늘 벼루 수레"
)
BEASTS = _list("사자 늑대 여우 곰 학 거북 용 매 사슴 토끼 고래 뱀 두루미 까치 호랑이 잉어 제비 수달 부엉이 말")
PLACES = _list("강가 언덕 늪 골짜기 바닷가 동굴 들판 절벽 숲속 섬 산마루 호숫가 사막 시냇가 고원 폐허")
TASTES = _list("단맛 쓴맛 신맛 짠맛 매운맛 떫은맛 담백한맛 싱거운맛")
CURES = _list("기침 두통 열병 불면 복통 감기 부종 어지럼 치통 화상 근육통 멀미 가려움 현기증 빈혈 체증")
SEASONS = _list("봄 여름 가을 겨울")
MONTHS = _list("정월 이월 삼월 사월 오월 유월 칠월 팔월 구월 시월 동짓달 섣달")
TRADES = _list("뱃사공 대장장이 약초꾼 서기 목수 사냥꾼 어부 요리사 악사 화가 농부 상인 도공 재단사 등대지기 문지기")
TOOLS = _list("망치 끌 톱 가위 물레 송곳 붓 자 저울 집게 대패 삽 낫 화로 모루 나침반")
BUILDINGS = _list("성 탑 숲 호 섬 절 관 문")

COLOURS_EN = _list("red blue black white yellow green purple gold silver grey pink orange")
USES_EN = _list("lamps paint ships coins bells glass roads ink rings tiles wire masks boats drums maps knives")
BEASTS_EN = _list("lion wolf fox bear crane turtle dragon hawk deer rabbit whale snake owl tiger carp swallow")
PLACES_EN = _list("river hill swamp valley shore cave field cliff forest island desert lake")
FOODS_EN = _list("seeds fish berries worms nuts grass moss insects roots honey snails fruit")
THINGS_EN = _list("apple stone river candle mirror ladder basket window bottle garden pencil bridge hammer ribbon")


_RIEUL = 8  # ㄹ among the 28 endings of a Hangul syllable


def has_final(word: str) -> bool:
    """Whether the last Hangul syllable of `word` ends in a consonant (digits as they are read aloud)."""
    last = word[-1]
    if last.isdigit():
        return last in "013678"
    return "가" <= last <= "힣" and (ord(last) - ord("가")) % 28 != 0


def with_particle(word: str, after_consonant: str, after_vowel: str) -> str:
    """`word` with the form of a Korean particle that fits its ending: 은/는, 이/가, 을/를, 으로/로."""
    if after_consonant == "으로" and "가" <= word[-1] <= "힣" and (ord(word[-1]) - ord("가")) % 28 == _RIEUL:
        return word + after_vowel
    return word + (after_consonant if has_final(word) else after_vowel)


def korean_name(rng: random.Random) -> str:
    """A name of two syllables."""
    return rng.choice(FIRST) + rng.choice(LAST)


def english_name(rng: random.Random) -> str:
    """A name of two syllables, capitalised."""
    return (rng.choice(FIRST_EN) + rng.choice(LAST_EN)).capitalize()


def distinct(rng: random.Random, draw: Callable[[random.Random], str], count: int) -> list[str]:
    """`count` different words; `draw` is a function of `rng`."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw(rng)] = None
    return list(found)
