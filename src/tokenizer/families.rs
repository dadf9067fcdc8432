//! The table of pre-tokenizers: by each name in `tokenizer.ggml.pre`, the patterns that cut a text into words, and the
//! settings that the name implies. The patterns are those of llama.cpp, which are in part simpler than those in the
//! models' own files: where it knows no case of letters, there is none here, so that the tokens are the same.

use super::split::Cut::{self, *};

/// One pass over the text: every match is a piece, and so is the text between matches.
pub(super) type Pass = (&'static str, Cut);

/// A family's rules.
pub(super) struct Family {
    /// Values of `tokenizer.ggml.pre`.
    pub(super) names: &'static [&'static str],
    /// Applied in order, each to the pieces of the pass before.
    pub(super) passes: &'static [Pass],
    pub(super) settings: Settings,
}

/// Settings that a name implies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Whether a word that is a token becomes this token, regardless of merges.
    pub(super) whole_words: bool,
    /// Whether `bos` goes in front if the file doesn't say.
    pub(super) adds_bos: bool,
    /// Whether `bos` goes in front whatever the file says.
    pub(super) always_adds_bos: bool,
    /// Whether tokens are spelled as they are, with U+2581 for spaces, instead of byte by byte.
    pub(super) spaced: bool,
    /// Whether line breaks side by side are one token, if there is such a token.
    pub(super) whole_lines: bool,
}

const PLAIN: Settings = Settings {
    whole_words: false,
    adds_bos: false,
    always_adds_bos: false,
    spaced: false,
    whole_lines: false,
};
const WHOLE_WORDS: Settings = Settings { whole_words: true, ..PLAIN };
const WITH_BOS: Settings = Settings { adds_bos: true, ..PLAIN };
const WHOLE_WORDS_WITH_BOS: Settings = Settings { adds_bos: true, ..WHOLE_WORDS };
const SPACED: Settings = Settings { spaced: true, ..PLAIN };
const GEMMA: Settings = Settings { always_adds_bos: true, whole_lines: true, ..SPACED };

/// GPT-2's words: contractions, letters, digits, other characters, each with at most one space in front.
const GPT2: Pass = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+", LeaveOne);
/// Llama 3's words: contractions in any case, letters with any one mark in front, three digits at most, line breaks.
const LLAMA3: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Llama 3's words, with runs of spaces cut by powers of two.
const JAIS2: Pass = (LLAMA3.0, Powers);
/// Llama 3's words, where digits were cut out before.
const MINICPM5: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Qwen 2's words: Llama 3's, but single digits.
const QWEN2: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Qwen 3.5's words: Qwen 2's, but combining marks stay with their letters.
const QWEN35: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Qwen 2's words without contractions.
const UFAKZEKA: Pass =
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+", LeaveOneOnLine);
/// Qwen 2's words, but of several line breaks each alone.
const BAILINGMOE: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+",
    LeaveOneOnLine,
);
/// Qwen 2's words, but marks without the line breaks behind them.
const SEED_CODER: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Several words of letters with one space between them are one.
const EXAONE_MOE: Pass = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+",
    LeaveOneOnLine,
);
/// Letters by case, for ASCII; single digits.
const TEKKEN: Pass = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Letters by case, for ASCII, with the contraction behind them; three digits at most.
const GPT4O: Pass = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]*[\p{L}--[A-Z]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{L}--[a-z]]+[\p{L}--[A-Z]]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// As [`GPT4O`], but combining marks stay with their letters.
const GRANITE_MULTI: Pass = (
    r"[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]--[a-z]]*[[\p{L}\p{M}]--[A-Z]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[[\p{L}\p{M}]--[a-z]]+[[\p{L}\p{M}]--[A-Z]]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Letters and combining marks with the contraction behind them; three digits at most.
const TINY_AYA: Pass = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// As [`TINY_AYA`], but single digits.
const YOUTU: Pass = (
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// Hangul; marks; Bopomofo; Chinese and Japanese.
const YOUTU_SCRIPTS: Pass = (
    r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+|[\u{3105}-\u{312F}]+|[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
    Whole,
);
/// Chinese alone, other letters with the contraction behind them, three digits at most.
const KIMI: Pass = (
    r"[\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FAFF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2EBEF}\u{2F800}-\u{2FA1F}]+|[^\r\n\p{L}\p{N}]?[\p{L}--[\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FAFF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2EBEF}\u{2F800}-\u{2FA1F}]]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// DeepSeek 3's words: a mark with ASCII letters, letters with combining marks, punctuation and symbols.
const DEEPSEEK3: Pass = (
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+",
    LeaveOneOnLine,
);
/// As [`DEEPSEEK3`], but line breaks alone.
const SPARK: Pass =
    (r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+", LeaveOne);
/// BLOOM's words: anything but spaces and some marks, with at most one space in front.
const BLOOM: Pass = (r" ?[^(\s|.,!?\u{2026}\u{3002}\u{FF0C}\u{3001}\u{964}\u{6D4}\u{60C})]+", Whole);
/// Letters of alphabets with two cases, with at most one space in front.
const DEEPSEEK_LETTERS: Pass = (
    concat!(
        r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-",
        r"\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-",
        r"\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-",
        r"\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}",
        r"\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-",
        r"\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-",
        r"\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}",
        r"\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}",
        r"\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}",
        r"\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-",
        r"\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}",
        r"\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-",
        r"\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+",
    ),
    Whole,
);
/// Marks with at most one space in front.
const DEEPSEEK_MARKS: Pass =
    (r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3001}-\u{3002}]+", Whole);
/// Most other scripts.
const DEEPSEEK_SCRIPTS: Pass = (r"[[\u{800}-\u{9FA5}\u{AC00}-\u{D7FF}]--\s]+", Whole);
/// Chinese and Japanese.
const CHINESE_JAPANESE: Pass = (r"[\u{4E00}-\u{9FA5}\u{3040}-\u{30FF}]+", Whole);
/// Scripts that put no spaces between words.
const AFMOE_SCRIPTS: Pass = (
    r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{8C48}-\u{FAFF}\u{3040}-\u{309F}\u{30A0}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}\u{1100}-\u{11FF}]+",
    Whole,
);
/// Single digits.
const DIGIT: Pass = (r"\p{N}", Whole);
/// Digits side by side.
const DIGITS: Pass = (r"\p{N}+", Whole);
/// Up to three digits.
const UP_TO_THREE_DIGITS: Pass = (r"\p{N}{1,3}", Whole);
/// Three ASCII digits.
const THREE_DIGITS: Pass = (r"[0-9][0-9][0-9]", Whole);
/// Groups of three digits from the right. What stands before the first group stays with it.
const THOUSANDS: Pass = (r"\p{N}+", BehindThousands);
/// Line breaks.
const LINE_BREAK: Pass = (r"[\r\n]", Whole);
/// Lines, and line breaks side by side.
const LINES: Pass = (r"\n+", Whole);

/// Every known name.
pub(super) const FAMILIES: &[Family] = &[
    family(&["default"], &[(r"[\p{P}$+<=>^~|]+", Whole), GPT2, DIGITS, THREE_DIGITS], PLAIN),
    family(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "mellum",
            "modern-bert",
            "exaone4",
            "granite-docling",
            "a.x-4.0",
            "gigachat",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
        ],
        &[GPT2],
        PLAIN,
    ),
    family(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
        PLAIN,
    ),
    family(
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "lfm2",
            "midm-2.0",
            "jina-v5-nano",
        ],
        &[LLAMA3],
        WHOLE_WORDS_WITH_BOS,
    ),
    family(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3], PLAIN),
    family(&["glm4", "glm5"], &[LLAMA3], WHOLE_WORDS),
    family(&["jais-2"], &[JAIS2], PLAIN),
    family(&["minicpm5"], &[UP_TO_THREE_DIGITS, MINICPM5], WHOLE_WORDS),
    family(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        &[QWEN2],
        PLAIN,
    ),
    family(&["qwen35"], &[QWEN35], PLAIN),
    family(&["ufakzeka"], &[UFAKZEKA], PLAIN),
    family(&["laguna"], &[LINES, QWEN2], PLAIN),
    family(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILINGMOE], PLAIN),
    family(&["seed-coder"], &[SEED_CODER], PLAIN),
    family(&["exaone-moe"], &[EXAONE_MOE], PLAIN),
    family(&["falcon"], &[(r"[\p{P}$+<=>^~|`]+", Whole), GPT2, THREE_DIGITS], PLAIN),
    family(&["tekken"], &[TEKKEN], WHOLE_WORDS_WITH_BOS),
    family(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O], PLAIN),
    family(&["granite-embed-multi-97m"], &[GRANITE_MULTI], WHOLE_WORDS),
    family(&["tiny_aya", "cohere2moe"], &[THOUSANDS, TINY_AYA], PLAIN),
    family(&["youtu"], &[YOUTU_SCRIPTS, YOUTU], WHOLE_WORDS),
    family(&["kimi-k2"], &[KIMI], PLAIN),
    family(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[UP_TO_THREE_DIGITS, CHINESE_JAPANESE, DEEPSEEK3],
        PLAIN,
    ),
    family(&["spark2_5"], &[UP_TO_THREE_DIGITS, CHINESE_JAPANESE, SPARK, DIGIT], PLAIN),
    family(&["afmoe"], &[THOUSANDS, AFMOE_SCRIPTS, DEEPSEEK3], PLAIN),
    family(
        &["deepseek-llm"],
        &[LINE_BREAK, DEEPSEEK_LETTERS, DEEPSEEK_MARKS, (r"\s+$", Whole), DEEPSEEK_SCRIPTS, DIGITS],
        PLAIN,
    ),
    family(
        &["deepseek-coder"],
        &[LINE_BREAK, (r"\s?\p{L}+", Whole), (r"\s?\p{P}+", Whole), DEEPSEEK_SCRIPTS, DIGIT],
        PLAIN,
    ),
    family(&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM], PLAIN),
    family(&["viking"], &[BLOOM, DIGIT], PLAIN),
    family(&["superbpe"], &[DIGITS, (r"[0-9]+", BeforeThousands)], PLAIN),
    family(
        &["chameleon"],
        &[
            (r"<sentinel:[0-9]+>", Whole),
            (r"IMGIMG[A-I]{1,4}Z", Whole),
            (r"[\t\n]|    |  ", Whole),
            DIGIT,
            (r"[\p{P}!-/:-@\[-`{-~]", Whole),
            GPT2,
        ],
        WITH_BOS,
    ),
    family(&["gemma4", "granite-embed-multi-311m"], &[LINES], GEMMA),
    family(&["sarvam-moe"], &[LINES], SPACED),
];

const fn family(names: &'static [&'static str], passes: &'static [Pass], settings: Settings) -> Family {
    Family { names, passes, settings }
}
