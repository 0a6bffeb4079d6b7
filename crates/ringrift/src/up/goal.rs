//! `--until`: what ends a run well.

use std::{fmt, str::FromStr};

use ringrift_pipeline::{Catalogue, CatalogueError, Config};

/// A number of promotions in the data directory, summed over the configs that are played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    promotions: usize,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain: String = text.split_whitespace().collect();
        plain
            .strip_prefix("promotions>=")
            .and_then(|number| number.parse().ok())
            .map(|promotions| Self { promotions })
            .ok_or_else(|| format!("'{text}' is no goal: allowed is 'promotions>=NUMBER'"))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promotions>={}", self.promotions)
    }
}

impl Goal {
    /// Is it reached, and how far is it?
    pub async fn reached(
        self,
        catalogue: &Catalogue,
        configs: &[Config],
    ) -> Result<(bool, usize), CatalogueError> {
        let mut promotions = 0;
        for config in configs {
            promotions += catalogue.promotions(Some(*config)).await?.len();
        }
        Ok((promotions >= self.promotions, promotions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_reads_as_it_prints_and_nothing_else_is_one() {
        assert_eq!("promotions>=2".parse::<Goal>().unwrap().to_string(), "promotions>=2");
        assert_eq!(" promotions >= 2 ".parse::<Goal>().unwrap().promotions, 2);
        for text in ["promotions=2", "promotions>2", "games>=5", "promotions>=-1", ""] {
            let refused = text.parse::<Goal>().unwrap_err();
            assert!(refused.contains("allowed is 'promotions>=NUMBER'"), "{refused}");
        }
    }
}
