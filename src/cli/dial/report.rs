//! How each target fared, for people and for programs. It does not know how many were required.

use std::{io, time::Duration};

use comfy_table::{Cell, CellAlignment, Color, Table, presets::NOTHING};
use overfall::dial::Outcome;
use serde_json::{Value, json};

use crate::cli::output;

pub(super) fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !output::may_be_coloured(&io::stdout()) {
        table.force_no_tty();
    }
    table.set_header(["target", "address", "state", "connect", "first byte", "total", "attempts", "error"]);
    for outcome in outcomes {
        let (state, colour, class) = match &outcome.failure {
            None => ("ok", Color::Green, ""),
            Some(failure) => ("failed", Color::Red, failure.class.name()),
        };
        let address = outcome.address.map_or_else(|| "-".into(), |address| address.to_string());
        table.add_row([
            Cell::new(&outcome.target),
            Cell::new(address),
            Cell::new(state).fg(colour),
            number(outcome.connect.map_or_else(|| "-".into(), milliseconds)),
            number(outcome.first_byte.map_or_else(|| "-".into(), milliseconds)),
            number(milliseconds(outcome.total)),
            number(outcome.attempts.to_string()),
            Cell::new(class),
        ]);
    }
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// A sentence for each failure, on standard error.
pub(super) fn explain(outcomes: &[Outcome]) {
    for outcome in outcomes {
        if let Some(failure) = &outcome.failure {
            output::complain(&format!("{}: {}", outcome.target, failure.message));
        }
    }
}

/// One document with all of it.
pub(super) fn document(outcomes: &[Outcome]) -> Value {
    let us = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    let target = |outcome: &Outcome| {
        json!({
            "target": outcome.target,
            "address": outcome.address.map(|address| address.to_string()),
            "ok": outcome.failure.is_none(),
            "resolve_us": us(outcome.resolve),
            "connect_us": us(outcome.connect),
            "first_byte_us": us(outcome.first_byte),
            "total_us": us(Some(outcome.total)),
            "attempts": outcome.attempts,
            "received_bytes": outcome.received,
            "reply": String::from_utf8_lossy(&outcome.reply),
            "error": outcome.failure.as_ref().map(|failure| json!({
                "class": failure.class.name(),
                "message": failure.message,
            })),
        })
    };
    json!({ "version": 1, "targets": outcomes.iter().map(target).collect::<Vec<_>>() })
}
