//! How help looks: its width and its colours. It knows no command and no flag.

use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Styles};

use super::output;

/// Wider lines are hard to read, and break where a terminal or a page has no more.
pub(super) const COLUMNS: usize = 80;

/// As cargo has them, which is what people who install it have seen.
pub(super) const STYLES: Styles = Styles::styled()
    .header(AnsiColor::BrightGreen.on_default().bold())
    .usage(AnsiColor::BrightGreen.on_default().bold())
    .literal(AnsiColor::BrightCyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// The help, or whatever the parser says in its place, as it is to be written to this stream.
pub(super) fn text(said: &clap::Error, stream: &impl IsTerminal) -> String {
    let text = said.render();
    if output::may_be_coloured(stream) { text.ansi().to_string() } else { text.to_string() }
}
