//! Which files need not be kept: a pure function of what there is.

use std::collections::BTreeMap;

/// Something that retention may judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<K> {
    /// What it is called.
    pub key: K,
    /// What kind it is; decides which rule applies.
    pub class: String,
    /// Within which the newest are counted.
    pub group: String,
    /// When it was made; any number that grows.
    pub made: i64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// How much of a class is kept. A class without a rule is kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The class.
    pub class: String,
    /// The newest so many of each group are kept.
    pub keep_newest: usize,
}

/// Something that need not be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed<K> {
    /// What it is called.
    pub key: K,
    /// Its size in bytes.
    pub bytes: u64,
    /// The rule that says so, as a sentence.
    pub rule: String,
}

/// Lists what need not be kept, the oldest first.
///
/// `keep` says what is kept whatever the rules say; it still counts among the newest. An item under
/// one key in several groups is doomed only if all of them give it up.
pub fn plan_retention<K: Clone + Ord>(
    items: &[Item<K>],
    rules: &[Rule],
    keep: impl Fn(&K) -> bool,
) -> Vec<Doomed<K>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Item<K>>> = BTreeMap::new();
    for item in items {
        groups.entry((&item.class, &item.group)).or_default().push(item);
    }
    let mut verdicts: BTreeMap<&K, Option<(i64, Doomed<K>)>> = BTreeMap::new();
    for ((class, group), mut members) in groups {
        let rule = rules.iter().find(|rule| rule.class == class);
        // The newest first; of two made together the order of keys decides, so that a second run
        // decides the same.
        members.sort_by(|a, b| (b.made, &b.key).cmp(&(a.made, &a.key)));
        members.dedup_by(|a, b| a.key == b.key);
        for (place, item) in members.into_iter().enumerate() {
            let doomed = rule.filter(|rule| place >= rule.keep_newest && !keep(&item.key));
            let doomed = doomed.map(|rule| {
                let n = rule.keep_newest;
                let rule = format!("the newest {n} of {class} are kept in {group}");
                (item.made, Doomed { key: item.key.clone(), bytes: item.bytes, rule })
            });
            verdicts
                .entry(&item.key)
                .and_modify(|verdict| {
                    if doomed.is_none() {
                        *verdict = None;
                    }
                })
                .or_insert(doomed);
        }
    }
    let mut doomed: Vec<_> = verdicts.into_values().flatten().collect();
    doomed.sort_by(|a, b| (a.0, &a.1.key).cmp(&(b.0, &b.1.key)));
    doomed.into_iter().map(|(_, doomed)| doomed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(key: u32, class: &str, group: &str, made: i64) -> Item<u32> {
        Item { key, class: class.to_owned(), group: group.to_owned(), made, bytes: 10 }
    }

    fn rule(class: &str, keep_newest: usize) -> Rule {
        Rule { class: class.to_owned(), keep_newest }
    }

    fn check(items: &[Item<u32>], rules: &[Rule], keep: &[u32], expected: &[u32]) {
        let doomed = plan_retention(items, rules, |key| keep.contains(key));
        let keys: Vec<u32> = doomed.into_iter().map(|doomed| doomed.key).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_newest_of_each_group_are_kept() {
        let items = [
            item(1, "window", "a", 30),
            item(2, "window", "a", 10),
            item(3, "window", "a", 20),
            item(4, "window", "b", 1),
        ];
        check(&items, &[rule("window", 1)], &[], &[2, 3]);
    }

    #[test]
    fn a_class_without_a_rule_is_kept() {
        check(&[item(1, "raw", "a", 1)], &[rule("window", 0)], &[], &[]);
    }

    #[test]
    fn what_must_be_kept_is_kept_and_counts() {
        let items = [item(1, "w", "a", 1), item(2, "w", "a", 2), item(3, "w", "a", 3)];
        check(&items, &[rule("w", 1)], &[1], &[2]);
        check(&items, &[rule("w", 1)], &[3], &[1, 2]);
    }

    #[test]
    fn one_group_that_keeps_is_enough() {
        let items = [item(1, "w", "a", 1), item(1, "w", "b", 1), item(2, "w", "a", 2)];
        check(&items, &[rule("w", 1)], &[], &[]);
        let items = [item(1, "w", "a", 1), item(1, "raw", "b", 1)];
        check(&items, &[rule("w", 0)], &[], &[]);
    }

    proptest! {
        #[test]
        fn a_second_run_on_what_is_left_finds_nothing(
            items in prop::collection::vec((0_u32..20, 0_u8..3, 0_u8..3, 0_i64..10), 0..40),
            keep_newest in 0_usize..4,
            keep in prop::collection::vec(0_u32..20, 0..4),
        ) {
            let items: Vec<_> = items
                .into_iter()
                .map(|(key, class, group, made)| {
                    item(key, &class.to_string(), &group.to_string(), made)
                })
                .collect();
            let rules = [rule("0", keep_newest), rule("1", 1)];
            let doomed = plan_retention(&items, &rules, |key| keep.contains(key));
            for gone in &doomed {
                prop_assert!(!keep.contains(&gone.key));
                prop_assert!(!items.iter().any(|i| i.key == gone.key && i.class == "2"));
            }
            let left: Vec<_> = items
                .into_iter()
                .filter(|item| !doomed.iter().any(|gone| gone.key == item.key))
                .collect();
            prop_assert_eq!(plan_retention(&left, &rules, |key| keep.contains(key)), vec![]);
        }
    }
}
