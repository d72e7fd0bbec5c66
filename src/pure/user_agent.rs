//! What people call a browser. It decides nothing: anything can be written there.

/// Browsers name others, too, so the order counts.
const BROWSERS: [(&str, &str); 8] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
];
const SYSTEMS: [(&str, &str); 8] = [
    ("Windows", " on Windows"),
    ("Android", " on Android"),
    ("iPhone", " on an iPhone"),
    ("iPad", " on an iPad"),
    ("CrOS", " on ChromeOS"),
    ("Mac OS X", " on a Mac"),
    ("Linux", " on Linux"),
    ("BSD", " on BSD"),
];
/// Characters of the name of a program that is none of these.
const MAX_NAME: usize = 32;

/// What people call a browser that names itself so, or the name of another program; empty for nothing.
pub fn name(user_agent: &str) -> String {
    let signed = |names: &[(&str, &'static str)]| {
        let mut names = names.iter();
        let named = names.find(|(sign, _)| user_agent.contains(sign));
        named.map(|(_, name)| *name)
    };
    match signed(&BROWSERS) {
        Some(browser) => format!("{browser}{}", signed(&SYSTEMS).unwrap_or_default()),
        None => {
            let name = user_agent.split([' ', '/', '(']).next().unwrap_or_default();
            let plain = name.chars().filter(char::is_ascii_graphic);
            plain.take(MAX_NAME).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_called_what_people_call_them() {
        for (user_agent, called) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
                "Safari on a Mac",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/140.0 Mobile/15E148 Safari/605.1.15",
                "Firefox on an iPhone",
            ),
            ("Firefox/140.0", "Firefox"),
            ("curl/8.5.0", "curl"),
            ("<b>x\u{7}y</b>", "<b>xy<"),
            ("", ""),
        ] {
            assert_eq!(name(user_agent), called);
        }
        assert_eq!(name(&"é".repeat(100)), "");
        assert_eq!(name(&"x".repeat(100)).len(), MAX_NAME);
    }
}
