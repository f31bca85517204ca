//! Which objects a sample holds. The choice depends on the seed and on the object's path alone, so that it can be made again.

use std::fmt;
use std::str::FromStr;

use crate::model::digest::Sha256;

/// A part of all objects in millionths: more than nothing, at most all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

const ALL: u32 = 1_000_000;

impl FromStr for Share {
    type Err = String;

    /// `5%`, `5`, `0.5%`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is no share of more than 0% and at most 100%");
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 4 {
            return Err(bad());
        }
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        let fraction: u32 = format!("{fraction:0<4}").parse().map_err(|_| bad())?;
        let millionths = whole.checked_mul(ALL / 100).and_then(|whole| whole.checked_add(fraction));
        millionths.filter(|share| (1..=ALL).contains(share)).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / (ALL / 100), self.0 % (ALL / 100));
        let fraction = format!("{fraction:04}");
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            fraction => write!(f, "{whole}.{fraction}%"),
        }
    }
}

/// A reproducible choice of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub share: Share,
    pub seed: u64,
}

impl Sample {
    pub fn holds(&self, path: &str) -> bool {
        let hash = Sha256::of(format!("{}/{path}", self.seed).as_bytes());
        let point = hash.0[..8].iter().fold(0_u64, |point, byte| point << 8 | u64::from(*byte));
        (u128::from(point) * u128::from(ALL)) >> 64 < u128::from(self.share.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_shown() {
        for (text, millionths, shown) in [
            ("5%", 50_000, "5%"),
            ("5", 50_000, "5%"),
            ("100%", 1_000_000, "100%"),
            ("0.5%", 5_000, "0.5%"),
            ("12.0625", 120_625, "12.0625%"),
            ("0.0001%", 1, "0.0001%"),
        ] {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.0, share.to_string().as_str()), (millionths, shown), "{text}");
        }
        for bad in
            ["", "%", "0", "0%", "0.00001%", "101%", "100.0001%", "-5%", "5.%", ".5", "five", "1e2", "99999999999%"]
        {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sample_is_a_matter_of_share_seed_and_path() {
        let sample = |share: &str, seed| Sample { share: share.parse().unwrap(), seed };
        let chosen =
            |sample: Sample| (0..10_000).filter(|i| sample.holds(&format!("n/data/{i}"))).collect::<Vec<u32>>();
        let tenth = chosen(sample("10%", 1));
        assert!((800..1200).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, chosen(sample("10%", 1)));
        assert_ne!(tenth, chosen(sample("10%", 2)));
        let fifth = chosen(sample("20%", 1));
        assert!(tenth.iter().all(|i| fifth.contains(i)), "a larger share of the same seed holds the smaller one");
        assert_eq!(chosen(sample("100%", 3)).len(), 10_000);
        // The choice must stay what it is: somebody may have noted the seed.
        assert_eq!(
            chosen(sample("0.1%", 7)),
            [
                1036, 1065, 1201, 1902, 2033, 2166, 2348, 2613, 3676, 3801, 4728, 5085, 5187, 6230, 6750, 7010, 7843,
                9429
            ]
        );
    }
}
