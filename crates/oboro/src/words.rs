//! The word vectors that come with the program; see `data/NOTICE.md`.

use half::f16;

/// Values of a word vector.
pub(crate) const DIMENSION: usize = 50;

static WORDS: &str = include_str!("../data/glove-50d-20k.words.txt");
static VECTORS: &[u8] = include_bytes!("../data/glove-50d-20k.f16");

/// The words, most frequent first.
pub(crate) fn words() -> Vec<&'static str> {
    WORDS.lines().collect()
}

/// Their vectors, row by row.
pub(crate) fn vectors() -> Vec<f32> {
    let (pairs, _) = VECTORS.as_chunks::<2>();
    pairs
        .iter()
        .map(|pair| f16::from_le_bytes(*pair).to_f32())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_vector() {
        let words = words();
        let vectors = vectors();
        assert_eq!(words.len(), 20_000);
        assert_eq!(vectors.len(), words.len() * DIMENSION);
        assert!(vectors.iter().all(|value| value.is_finite()));
        assert!(
            words
                .iter()
                .all(|word| word.chars().all(|c| c.is_ascii_lowercase()))
        );
        // "king" is nearer to "queen" than to "banana".
        let row = |word| {
            let at = words
                .iter()
                .position(|w| *w == word)
                .expect("a frequent word");
            &vectors[at * DIMENSION..][..DIMENSION]
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let cosine = |a, b| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine(row("king"), row("queen")) > cosine(row("king"), row("banana")));
    }
}
