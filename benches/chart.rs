//! The chart: the seven figures that users care about. Each compares the program with
//! another one that does the same.

use crate::figures::{Figure, Wanted};
use crate::results::Results;
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, TextStyle, WHITE};
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The program is as good as the other, or better.
const AHEAD: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
const BEHIND: RGBColor = RGBColor(0xc0, 0x56, 0x21);
const INK: RGBColor = RGBColor(0x1a, 0x20, 0x2c);

/// The width of the chart, in pixels.
const WIDTH: i32 = 980;
/// Where bars begin and where the longest one ends, in pixels from the left.
const BARS: (i32, i32) = (500, 900);
/// The height of a line, in pixels.
const LINE: i32 = 24;

/// A figure that is drawn.
struct Shown {
    /// The work and the figure, as in the table.
    row: (&'static str, &'static str),
    /// What users call it.
    label: &'static str,
}

const SHOWN: [Shown; 7] = [
    Shown {
        row: ("a hit of 700 bytes", "per-core rate, poetry proxy / nginx"),
        label: "cached answers a second, against nginx's fixed ones",
    },
    Shown {
        row: (
            "a hit of 700 bytes, line protocol",
            "per-core rate, poetry proxy / floor",
        ),
        label: "cached whois answers a second, against a plain loop",
    },
    Shown {
        row: (
            "misses of 32 clients",
            "requests a second, poetry proxy / HAProxy",
        ),
        label: "requests passed on a second, against HAProxy",
    },
    Shown {
        row: ("a lone miss", "median time, poetry proxy / HAProxy"),
        label: "the time to pass on one request, against HAProxy",
    },
    Shown {
        row: (
            "10,000 clients of one poem in flight",
            "last byte to last client, poetry proxy / floor",
        ),
        label: "the time to serve 10,000 waiting clients, against a plain loop",
    },
    Shown {
        row: (
            "300000 cached answers of 100 bytes",
            "beside key and value, poetry proxy / memcached",
        ),
        label: "memory of a cached answer, against memcached",
    },
    Shown {
        row: (
            "a poem of 700 bytes fetched",
            "whole process, poetry fetch / nc -N",
        ),
        label: "the time of poetry fetch, against nc",
    },
];

struct Bar {
    label: &'static str,
    value: f64,
}

/// Draws the figures into the file at `path`.
pub fn draw(results: &Results, path: &Path) -> Drawn {
    let bars: Vec<Bar> = SHOWN
        .iter()
        .filter_map(|shown| bar(shown, &results.figures))
        .collect();

    let size = (WIDTH as u32, ((bars.len() as i32 + 5) * LINE) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;

    let mut pen = Pen { root, at: LINE };
    let dates = results.figures.iter().map(|figure| figure.date.as_str());
    let date = dates.max().unwrap_or("never");
    pen.title(&format!("{}, {date}", results.machine))?;
    pen.title("How many times as good as the other: longer is better, 1 is the same")?;
    pen.bars(&bars)?;
    pen.root.present()
}

/// How many times as good as the other program this one is.
fn bar(shown: &Shown, figures: &[Figure]) -> Option<Bar> {
    let (work, name) = shown.row;
    let figure = figures
        .iter()
        .find(|figure| figure.work == work && figure.figure == name)?;
    let ratio = figure.got.as_ref().ok()?.median;

    // Times and bytes are better if they are smaller.
    let is_rate = matches!(figure.wanted, Wanted::AtLeast(_));
    Some(Bar {
        label: shown.label,
        value: if is_rate { ratio } else { 1.0 / ratio },
    })
}

/// Draws line by line, downwards.
struct Pen<'a> {
    root: Area<'a>,
    /// The middle of the next line, in pixels from the top.
    at: i32,
}

impl Pen<'_> {
    fn text(&self, text: &str, x: i32, anchor: HPos, size: i32) -> Drawn {
        let font = ("sans-serif", size).into_font();
        let style = TextStyle::from(font)
            .color(&INK)
            .pos(Pos::new(anchor, VPos::Center));
        let element = Text::new(text.to_string(), (x, self.at), style);
        self.root.draw(&element)
    }

    fn title(&mut self, text: &str) -> Drawn {
        self.text(text, LINE, HPos::Left, 15)?;
        self.at += LINE * 3 / 2;
        Ok(())
    }

    /// Draws bars from zero on, and a vertical line at 1.
    fn bars(&mut self, bars: &[Bar]) -> Drawn {
        let (left, right) = BARS;
        let longest = bars.iter().map(|bar| bar.value).fold(1.2, f64::max);
        let x = |value: f64| left + (value / longest * f64::from(right - left)) as i32;
        let top = self.at - LINE / 2;

        for bar in bars {
            self.text(bar.label, left - 8, HPos::Right, 13)?;
            let end = x(bar.value);
            let corners = [(left, self.at - 8), (end, self.at + 8)];
            let colour = if bar.value >= 1.0 { AHEAD } else { BEHIND };
            self.root.draw(&Rectangle::new(corners, colour.filled()))?;
            self.text(&format!("{:.2}", bar.value), end + 6, HPos::Left, 13)?;
            self.at += LINE;
        }

        let line = vec![(x(1.0), top), (x(1.0), self.at - LINE / 2)];
        self.root.draw(&PathElement::new(line, INK.stroke_width(1)))
    }
}
