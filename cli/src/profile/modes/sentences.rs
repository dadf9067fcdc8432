//! The texts that `profile embed` uses where it is given none: sentences of some 30 words, put together from pieces, so
//! that all texts of a usual batch differ.

const WHEN: [&str; 5] = [
    "On the first morning of the winter",
    "Late in the afternoon, after heavy rain,",
    "Shortly before the shops closed that evening,",
    "In the third year of the drought",
    "While the others were still at breakfast,",
];
const WHO: [&str; 7] = [
    "an old fisherman from the harbour",
    "the youngest teacher of our school",
    "a tired doctor in a raincoat",
    "the captain of the small ferry",
    "two students with a broken bicycle",
    "the woman who repairs our clocks",
    "a violinist from the city orchestra",
];
const WHAT: [&str; 8] = [
    "carried a basket of warm bread up the hill",
    "found a letter between the pages of a book",
    "explained to the children how bees make their honey",
    "counted the coins twice and bought a train ticket",
    "painted the wooden door of the house dark green",
    "asked a stranger for the way to the museum",
    "planted seven apple trees along the edge of the field",
    "told a story about a storm that nobody believed",
];
const WHERE: [&str; 9] = [
    "while a dog slept beside the well.",
    "although the road was covered with snow.",
    "because the last bus had already left.",
    "and went home without saying a word.",
    "until the lights of the town appeared.",
    "as it had been done for years.",
    "before anybody noticed the smoke above the roof.",
    "so that there was time for tea.",
    "and wrote it down in a notebook.",
];

/// As many texts; the first 2,520 differ.
pub fn sentences(count: usize) -> Vec<String> {
    let sentence = |i: usize| {
        let pieces = [WHEN[i % WHEN.len()], WHO[i % WHO.len()], WHAT[i % WHAT.len()], WHERE[i % WHERE.len()]];
        pieces.join(" ")
    };
    (0..count).map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_a_batch_differ_and_are_about_as_long() {
        let texts = sentences(2520);
        assert_eq!(texts.iter().collect::<std::collections::HashSet<_>>().len(), 2520);
        let words = |text: &String| text.split(' ').count();
        assert!(texts.iter().all(|text| (26..34).contains(&words(text))), "{texts:?}");
    }
}
