//! The tokens of xl's language (`libxlu_cfg_l.l`, tools/libs/util, the same in Xen 4.17 and 4.20).
//!
//! Differences from xl: a carriage return before a line break, a byte order mark before the text and a comment without a line
//! break at the end of the text are accepted. `\x` and octal escapes are errors: xl refuses the first, and reads the second
//! wrongly.

use super::source::{Place, Source};

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A key: a lower-case letter, then lower-case letters, digits, `_` and `.`.
    Key,
    /// A number, which stays text: a digit, then digits, `a` to `f` and `x`.
    Number,
    /// A text in quotes; its bytes.
    Text(Vec<u8>),
    /// `[`.
    Open,
    /// `]`.
    Close,
    /// `,`.
    Comma,
    /// `=`.
    Assign,
    /// `+=`.
    Append,
    /// `;`.
    Semicolon,
    /// The end of a line, with the comment before it.
    LineEnd,
    /// The end of the text.
    End,
    /// No token.
    Bad(BadToken),
}

/// Why some bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadToken {
    /// A byte that begins no token.
    Byte(u8),
    /// A text without its second quote in the line.
    Unclosed,
    /// An escape that there is not.
    Escape,
    /// An escape by number, which xl reads wrongly.
    NumberEscape,
    /// A NUL, at which xl cuts a text.
    Nul,
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) place: Place,
}

/// Reads tokens, each byte once.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    source: usize,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// At the start of text number `number`.
    pub(super) fn new(source: &'a Source, number: usize) -> Self {
        Self { bytes: source.bytes(), source: number, at: source.mark() }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at.saturating_add(ahead)).copied()
    }

    /// The length of what fits from byte `ahead` on, `ahead` included.
    fn run(&self, ahead: usize, fits: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(self.at.saturating_add(ahead)..).unwrap_or_default();
        ahead.saturating_add(rest.iter().take_while(|byte| fits(**byte)).count())
    }

    /// The length of a line break here, or 0.
    fn line_break(&self, ahead: usize) -> usize {
        match (self.peek(ahead), self.peek(ahead.saturating_add(1))) {
            (Some(b'\n'), _) => 1,
            (Some(b'\r'), Some(b'\n')) => 2,
            (Some(b'\r'), None) => 1,
            _ => 0,
        }
    }

    /// The next token; at the end of the text [`TokenKind::End`], again and again.
    pub(super) fn next(&mut self) -> Token {
        self.at = self.at.saturating_add(self.run(0, |byte| byte == b' ' || byte == b'\t'));
        let (kind, length) = self.token();
        let start = self.at;
        self.at = start.saturating_add(length).min(self.bytes.len());
        Token { kind, place: Place { source: self.source, start, end: self.at } }
    }

    fn token(&self) -> (TokenKind, usize) {
        let Some(first) = self.peek(0) else { return (TokenKind::End, 0) };
        match first {
            b'\n' | b'\r' if self.line_break(0) > 0 => (TokenKind::LineEnd, self.line_break(0)),
            b'#' => {
                let length = self.run(1, |byte| byte != b'\n');
                (TokenKind::LineEnd, length.saturating_add(self.line_break(length)))
            }
            b'a'..=b'z' => {
                let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
                (TokenKind::Key, self.run(1, fits))
            }
            b'0'..=b'9' => {
                let fits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f' | b'x');
                (TokenKind::Number, self.run(1, fits))
            }
            b'\'' | b'"' => self.text(first),
            b'[' => (TokenKind::Open, 1),
            b']' => (TokenKind::Close, 1),
            b',' => (TokenKind::Comma, 1),
            b';' => (TokenKind::Semicolon, 1),
            b'=' => (TokenKind::Assign, 1),
            b'+' if self.peek(1) == Some(b'=') => (TokenKind::Append, 2),
            // The whole character is one error.
            0x80.. => (TokenKind::Bad(BadToken::Byte(first)), self.run(1, |byte| matches!(byte, 0x80..=0xbf)).min(4)),
            byte => (TokenKind::Bad(BadToken::Byte(byte)), 1),
        }
    }

    fn text(&self, quote: u8) -> (TokenKind, usize) {
        let (mut text, mut length, mut bad) = (Vec::new(), 1, None);
        loop {
            let byte = self.peek(length).filter(|_| self.line_break(length) == 0);
            length = length.saturating_add(1);
            match byte {
                None => return (TokenKind::Bad(BadToken::Unclosed), length - 1),
                Some(byte) if byte == quote => break,
                Some(0) => bad = bad.or(Some(BadToken::Nul)),
                Some(b'\\') => {
                    let Some(escape) = self.peek(length).filter(|byte| *byte != b'\n') else {
                        return (TokenKind::Bad(BadToken::Unclosed), length);
                    };
                    length = length.saturating_add(1);
                    match escape_of(escape) {
                        Ok(byte) => text.push(byte),
                        Err(problem) => bad = bad.or(Some(problem)),
                    }
                }
                Some(byte) => text.push(byte),
            }
        }
        (bad.map_or(TokenKind::Text(text), TokenKind::Bad), length)
    }
}

/// The byte that a letter after a backslash stands for.
pub(super) fn escape_of(letter: u8) -> Result<u8, BadToken> {
    Ok(match letter {
        b'\\' | b'"' | b'\'' => letter,
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        b'x' | b'0'..=b'7' => return Err(BadToken::NumberEscape),
        _ => return Err(BadToken::Escape),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(bytes: &[u8]) -> Vec<Token> {
        let source = Source::new("x".to_owned(), bytes.to_vec());
        let mut lexer = Lexer::new(&source, 0);
        let mut all = Vec::new();
        loop {
            let token = lexer.next();
            if token.kind == TokenKind::End {
                return all;
            }
            all.push(token);
        }
    }

    fn kinds(text: &str) -> Vec<TokenKind> {
        tokens(text.as_bytes()).into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn every_token() {
        use TokenKind::{Append, Assign, Bad, Close, Comma, Key, LineEnd, Number, Open, Semicolon, Text};
        let text = |text: &str| Text(text.as_bytes().to_vec());
        assert_eq!(kinds("a.b_c1=0x1f;"), [Key, Assign, Number, Semicolon]);
        assert_eq!(kinds("a+=[1,\t'x']# c"), [Key, Append, Open, Number, Comma, text("x"), Close, LineEnd]);
        assert_eq!(kinds("\u{feff}a\r\n# b\r\n#\n\n\r"), [Key, LineEnd, LineEnd, LineEnd, LineEnd, LineEnd]);
        assert_eq!(kinds(r#""x\ty\\z" 'q"r\'' '#'"#), [text("x\ty\\z"), text("q\"r'"), text("#")]);
        assert_eq!(kinds(r"'\a\b\f\n\r\t\v'"), [text("\x07\x08\x0c\n\r\t\x0b")]);
        assert_eq!(kinds("12ag"), [Number, Key]);
        assert_eq!(
            kinds("T-é\r"),
            [b'T', b'-', 0xc3].map(|byte| Bad(BadToken::Byte(byte))).into_iter().chain([LineEnd]).collect::<Vec<_>>()
        );
        assert_eq!(kinds("a\rb"), [Key, Bad(BadToken::Byte(b'\r')), Key]);
        for (quoted, problem) in [
            ("'x", BadToken::Unclosed),
            ("'x\ny'", BadToken::Unclosed),
            ("'x\r\n", BadToken::Unclosed),
            ("'x\\", BadToken::Unclosed),
            ("'x\\\n'", BadToken::Unclosed),
            (r"'\d'", BadToken::Escape),
            (r"'\x41'", BadToken::NumberEscape),
            (r"'\101'", BadToken::NumberEscape),
            ("'\0'", BadToken::Nul),
        ] {
            assert_eq!(kinds(quoted).first(), Some(&Bad(problem)), "{quoted:?}");
        }
    }

    proptest! {
        /// So the work grows with the text, and not faster.
        #[test]
        fn each_byte_is_read_once(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"ab1=+[],;#'\"\\\r\n \t"[..])], 0..200)) {
            let mut end = 0;
            for token in tokens(&bytes) {
                prop_assert!(token.place.start >= end && token.place.end > token.place.start && token.place.end <= bytes.len());
                end = token.place.end;
            }
        }
    }
}
