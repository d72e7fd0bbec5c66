//! Markup that can't be injected into: what is not written in this source is escaped.

/// Bytes of a name that fits into a line of a phone, and is better not broken.
const SHORT: usize = 24;

/// A piece of HTML. Markup comes in only as a literal, everything else only as [`Html::text`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Html(String);

impl Html {
    /// Begins with markup.
    pub fn of(markup: &'static str) -> Self {
        Self(markup.to_owned())
    }

    /// Markup follows. `'static` is what keeps a request's text out.
    #[must_use]
    pub fn markup(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// Text follows, in an element or between the double quotes of an attribute (SECURITY.md T14).
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_deceptive(c) => self.0.push(char::REPLACEMENT_CHARACTER),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A name follows, in an element: a long one may break where it has parts.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        if name.len() <= SHORT {
            return self.text(name);
        }
        name.split_inclusive(['.', '@', '/', '-'])
            .fold(self, |html, part| html.text(part).markup("<wbr>"))
    }

    /// More HTML follows.
    #[must_use]
    pub fn html(mut self, html: &Self) -> Self {
        self.0.push_str(&html.0);
        self
    }

    /// The markup.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Control characters, and those that make the text around them read in another order.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        Html::default().text(text).into_string()
    }

    #[test]
    fn t14_markup_in_text_is_text() {
        for (text, shown) in [
            ("<svg/onload=alert(1)>", "&lt;svg/onload=alert(1)&gt;"),
            (
                "\"><script>alert(1)</script>",
                "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;",
            ),
            ("' autofocus onfocus='x", "&#39; autofocus onfocus=&#39;x"),
            ("&lt;", "&amp;lt;"),
            ("</style>", "&lt;/style&gt;"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn characters_that_turn_the_text_around_them_are_replaced() {
        assert_eq!(
            escaped("a\u{202e}b\u{2066}c\0d\r\ne"),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}\u{fffd}e"
        );
        assert_eq!(escaped("Jörg 日本 👋"), "Jörg 日本 👋");
    }

    #[test]
    fn a_long_name_breaks_at_its_parts_and_reads_the_same() {
        let name = |name| Html::default().name(name).into_string();
        assert_eq!(
            name("a<b@department.example.com"),
            "a&lt;b@<wbr>department.<wbr>example.<wbr>com<wbr>"
        );
        assert_eq!(name("it@example.com"), "it@example.com");
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_place(text: String) {
            let shown = escaped(&text);
            let free: &[_] = &['<', '>', '"', '\''];
            prop_assert!(!shown.contains(free));
            let back = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"")
                .replace("&#39;", "'").replace("&amp;", "&");
            let plain: String = text.chars()
                .map(|c| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
            prop_assert_eq!(back, plain);
        }
    }
}
