//! The only source of chance: SplitMix64, fixed here so that a seed means the same on every machine.

#[derive(Clone, Debug)]
pub(super) struct Prng {
    state: u64,
}

impl Prng {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Another stream. What one stream draws does not change what the other draws.
    pub(super) fn stream(seed: u64, number: u64) -> Self {
        let mut mixed = Self::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self::new(mixed.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let scaled = (u128::from(self.next()) * u128::from(end)) >> 64;
        u64::try_from(scaled).expect("the product is below the end")
    }

    /// A number of `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(super) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("a length fits 64 bits");
        usize::try_from(self.below(length)).expect("below a length")
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// True in `per_mille` of a thousand cases.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

#[test]
fn the_numbers_are_those_of_the_published_algorithm() {
    let mut prng = Prng::new(1_234_567);
    let drawn: Vec<_> = (0..3).map(|_| prng.next()).collect();
    assert_eq!(
        drawn,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}
