//! Figures: the median and quartiles of paired ratios, and the target for each.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The target for a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Wanted {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
    /// No target: the figure is shown for comparison.
    Shown,
}

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// One measurement divided by another.
    Ratio,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// The part that measures it.
    pub part: String,
    /// The work that is measured.
    pub work: String,
    /// The quantity, and what it is divided by.
    pub figure: String,
    pub wanted: Wanted,
    pub unit: Unit,
    /// The result, or why there is none.
    pub got: Result<Spread, String>,
    /// The day of the measurement.
    pub date: String,
}

/// The median of several rounds, and the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
    pub rounds: usize,
}

impl Spread {
    /// The spread of `samples`; `None` if there are none.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;

        // Between two samples, interpolate.
        let at = |fraction: f64| {
            let position = fraction * last as f64;
            let below = sorted[position.floor() as usize];
            let above = sorted[position.ceil() as usize];
            below + (above - below) * position.fract()
        };

        Some(Spread {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
            rounds: sorted.len(),
        })
    }
}

/// One sample for each round, or why there are none.
pub type Samples = Result<Vec<f64>, String>;

/// The ratio of two series, round by round.
pub fn paired(above: &Samples, below: &Samples) -> Samples {
    match (above, below) {
        (Ok(above), Ok(below)) => Ok(above.iter().zip(below).map(|(a, b)| a / b).collect()),
        (Err(why), _) | (_, Err(why)) => Err(why.clone()),
    }
}

/// The measurements of one figure.
pub struct Measured<'a> {
    pub work: &'a str,
    pub figure: &'a str,
    pub wanted: Wanted,
    pub unit: Unit,
    pub samples: Samples,
}

impl<'a> Measured<'a> {
    /// A figure that compares two measurements.
    pub fn ratio(work: &'a str, figure: &'a str, wanted: Wanted, samples: Samples) -> Measured<'a> {
        Measured {
            work,
            figure,
            wanted,
            unit: Unit::Ratio,
            samples,
        }
    }

    /// A figure in bytes.
    pub fn bytes(work: &'a str, figure: &'a str, wanted: Wanted, samples: Samples) -> Measured<'a> {
        Measured {
            unit: Unit::Bytes,
            ..Measured::ratio(work, figure, wanted, samples)
        }
    }
}

impl<'a> Measured<'a> {
    /// A figure in seconds.
    pub fn seconds(
        work: &'a str,
        figure: &'a str,
        wanted: Wanted,
        samples: Samples,
    ) -> Measured<'a> {
        Measured {
            unit: Unit::Seconds,
            ..Measured::ratio(work, figure, wanted, samples)
        }
    }
}

impl Figure {
    pub fn new(part: &str, measured: Measured<'_>) -> Figure {
        let got = measured
            .samples
            .and_then(|s| Spread::of(s).ok_or_else(|| "no round was complete".to_string()));
        let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();

        Figure {
            part: part.into(),
            work: measured.work.into(),
            figure: measured.figure.into(),
            wanted: measured.wanted,
            unit: measured.unit,
            got,
            date: now.chars().take_while(|c| *c != 'T').collect(),
        }
    }

    /// Whether the median reaches the target, in a word.
    pub fn verdict(&self) -> &'static str {
        match (&self.got, self.wanted) {
            (Err(_), _) => "not measured",
            (Ok(_), Wanted::Shown) => "",
            (Ok(got), Wanted::AtLeast(least)) if got.median >= least => "ok",
            (Ok(got), Wanted::AtMost(most)) if got.median <= most => "ok",
            _ => "short",
        }
    }

    fn number(&self, value: f64) -> String {
        match self.unit {
            Unit::Ratio => format!("{value:.2}"),
            Unit::Bytes if value.abs() >= 10_000.0 => format!("{:.0} kB", value / 1000.0),
            Unit::Bytes => format!("{value:.0} B"),
            Unit::Seconds if value.abs() >= 0.02 => format!("{:.0} ms", value * 1e3),
            Unit::Seconds if value.abs() >= 1e-3 => format!("{:.1} ms", value * 1e3),
            Unit::Seconds => format!("{:.0} us", value * 1e6),
        }
    }

    fn wanted(&self) -> String {
        match self.wanted {
            Wanted::AtLeast(least) => format!(">= {}", self.number(least)),
            Wanted::AtMost(most) => format!("<= {}", self.number(most)),
            Wanted::Shown => "-".into(),
        }
    }

    fn got(&self) -> String {
        match &self.got {
            Ok(s) => format!(
                "{} [{} to {}]",
                self.number(s.median),
                self.number(s.low),
                self.number(s.high)
            ),
            Err(why) => why.clone(),
        }
    }

    /// The cells of this figure's row.
    pub fn columns(&self) -> [String; 5] {
        [
            self.work.clone(),
            self.figure.clone(),
            self.wanted(),
            self.got(),
            self.verdict().to_string(),
        ]
    }
}

/// The column headings.
pub const COLUMNS: [&str; 5] = [
    "work",
    "figure",
    "wanted",
    "got: median [quartiles]",
    "verdict",
];

/// The table as it is printed on a terminal.
pub struct Table<'a>(pub &'a [Figure]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![COLUMNS.map(String::from)];
        rows.extend(self.0.iter().map(Figure::columns));

        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();

        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}
