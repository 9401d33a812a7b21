//! Patterns with `*`, which stands for any run of characters, also none. Case counts.

/// Whether `text` fits `pattern`. Linear in practice, `pattern × text` at worst; no recursion.
pub fn glob_match(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last `*` has to take one character more.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            back = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star, taken)) = back {
            back = Some((star, taken + 1));
            p = star + 1;
            t = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Whether `side` holds a `*`.
pub fn is_pattern(side: &str) -> bool {
    side.contains('*')
}

/// The literal text before the first `*`; all of it where there is none.
pub fn prefix(side: &str) -> &str {
    side.split('*').next().unwrap_or(side)
}

/// The literal text behind the last `*`; all of it where there is none.
pub fn suffix(side: &str) -> &str {
    side.rsplit('*').next().unwrap_or(side)
}

/// Whether some text fits both. Two patterns have one in common as soon as their literal beginnings
/// and their literal ends agree: their stars take in whatever the other one needs in between.
pub fn overlap(a: &str, b: &str) -> bool {
    match (is_pattern(a), is_pattern(b)) {
        (false, false) => a == b,
        (false, true) => glob_match(b, a),
        (true, false) => glob_match(a, b),
        (true, true) => {
            let agree = |x: &str, y: &str| x.starts_with(y) || y.starts_with(x);
            let agree_end = |x: &str, y: &str| x.ends_with(y) || y.ends_with(x);
            agree(prefix(a), prefix(b)) && agree_end(suffix(a), suffix(b))
        }
    }
}

/// How specific one side of a key is: an exact one more than any pattern, a pattern with more literal
/// characters more than one with fewer.
pub fn specificity(side: &str) -> (bool, usize) {
    (!is_pattern(side), side.chars().filter(|ch| *ch != '*').count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "web:Down", true),
            ("web:*", "web:Down", true),
            ("web:*", "web2:Down", false),
            ("*:Down", "web:Down", true),
            ("w*b", "wb", true),
            ("w*b*", "wxxbxxb", true),
            ("w*b", "wxbx", false),
            ("Web", "web", false),
            ("", "", true),
            ("", "x", false),
            ("日*", "日本", true),
            ("**a", "ba", true),
        ] {
            assert_eq!(glob_match(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!glob_match(&pattern, &"a".repeat(2000)));
    }

    proptest! {
        #[test]
        fn what_fits_both_patterns_shows_that_they_overlap(
            a in "[ab*]{0,5}", b in "[ab*]{0,5}", text in "[ab]{0,6}"
        ) {
            if glob_match(&a, &text) && glob_match(&b, &text) {
                prop_assert!(overlap(&a, &b));
            }
        }

        #[test]
        fn overlapping_patterns_have_a_text_in_common(a in "[ab*]{1,4}", b in "[ab*]{1,4}") {
            if overlap(&a, &b) {
                let texts = (0..=8u32).flat_map(|len| (0..1u32 << len).map(move |bits| {
                    (0..len).map(|at| if bits >> at & 1 == 0 { 'a' } else { 'b' }).collect::<String>()
                }));
                prop_assert!(texts.into_iter().any(|text| glob_match(&a, &text) && glob_match(&b, &text)));
            }
        }
    }
}
