//! The chart: hits beside the floor and the peers, and under it how far each figure is from what is wanted of it.

use crate::figures::Figure;
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

const OURS: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
const OTHERS: RGBColor = RGBColor(0xa0, 0xae, 0xc0);
const SHORT: RGBColor = RGBColor(0xc0, 0x56, 0x21);
const INK: RGBColor = RGBColor(0x1a, 0x20, 0x2c);

/// In pixels: the chart, where its bars begin and end, and the height of a line.
const WIDTH: i32 = 980;
const BARS: (i32, i32) = (500, 900);
const LINE: i32 = 20;

/// One bar: what it shows, how much, from where on, and how the number is written.
struct Bar {
    label: String,
    value: f64,
    colour: RGBColor,
}

/// Draws the figures into a file.
pub fn draw(results: &Results, path: &Path) -> Drawn {
    let hits = [
        hits(&results.figures, "drain"),
        hits(&results.figures, "per-core rate"),
    ];
    let wanted: Vec<Bar> = results.figures.iter().filter_map(reached).collect();
    let lines = hits.iter().map(Vec::len).sum::<usize>() + wanted.len() + 10;
    let root =
        SVGBackend::new(path, (WIDTH as u32, (lines as i32 * LINE) as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let date = results
        .figures
        .iter()
        .map(|figure| figure.date.as_str())
        .max()
        .unwrap_or("never");
    let mut pen = Pen { root, at: LINE };
    pen.title(&format!("{}, {date}", results.machine))?;
    let longest = hits
        .iter()
        .flatten()
        .map(|bar| bar.value)
        .fold(1.2, f64::max);
    for (bars, title) in hits.into_iter().zip([
        "queued hits served (drain)",
        "hits a second of one full core",
    ]) {
        if !bars.is_empty() {
            pen.title(&format!("{title}: a server's speed, with the floor's as 1"))?;
            pen.bars(&bars, |value| value / longest, 1.0)?;
        }
    }
    pen.title("every figure: how many times as good as wanted (logarithmic; 1 is reached)")?;
    pen.bars(&wanted, |value| (value.log10() + 1.0) / 2.0, 1.0)?;
    pen.root.present()
}

/// The servers compared with the floor.
fn hits(figures: &[Figure], kind: &str) -> Vec<Bar> {
    let bar = |figure: &Figure| {
        let name = figure
            .figure
            .strip_prefix(kind)?
            .strip_prefix(", ")?
            .strip_suffix(" / floor")?;
        let colour = if name.starts_with("poetry") {
            OURS
        } else {
            OTHERS
        };
        Some(Bar {
            label: name.to_string(),
            value: figure.got.as_ref().ok()?.median,
            colour,
        })
    };
    let own = figures.iter().filter(|figure| figure.part == "hits");
    let mut bars: Vec<Bar> = own.filter_map(bar).collect();
    if !bars.is_empty() {
        bars.insert(
            0,
            Bar {
                label: "floor (accept, send, close)".into(),
                value: 1.0,
                colour: OTHERS,
            },
        );
    }
    bars
}

fn reached(figure: &Figure) -> Option<Bar> {
    let value = figure.reached()?;
    let colour = if value >= 1.0 { OURS } else { SHORT };
    Some(Bar {
        label: format!("{}: {}", figure.work, figure.figure),
        value,
        colour,
    })
}

/// Draws line by line, downwards.
struct Pen<'a> {
    root: Area<'a>,
    at: i32,
}

impl Pen<'_> {
    fn text(&self, text: &str, x: i32, anchor: HPos, size: i32) -> Drawn {
        let font = ("sans-serif", size).into_font();
        let style = TextStyle::from(font)
            .color(&INK)
            .pos(Pos::new(anchor, VPos::Center));
        self.root
            .draw(&Text::new(text.to_string(), (x, self.at), style))
    }

    fn title(&mut self, text: &str) -> Drawn {
        self.at += LINE / 2;
        self.text(text, LINE, HPos::Left, 15)?;
        self.at += LINE * 3 / 2;
        Ok(())
    }

    /// Bars of which `place` tells where they end, from 0 at the left to 1 at the right, and a line at `mark`.
    fn bars(&mut self, bars: &[Bar], permit: impl Fn(f64) -> f64, mark: f64) -> Drawn {
        let x = |value: f64| {
            BARS.0 + (permit(value).clamp(0.0, 1.0) * f64::from(BARS.1 - BARS.0)) as i32
        };
        let top = self.at - LINE / 2;
        for bar in bars {
            self.text(&bar.label, BARS.0 - 8, HPos::Right, 12)?;
            let corners = [(BARS.0, self.at - 7), (x(bar.value), self.at + 7)];
            self.root
                .draw(&Rectangle::new(corners, bar.colour.filled()))?;
            self.text(
                &format!("{:.2}", bar.value),
                x(bar.value) + 6,
                HPos::Left,
                12,
            )?;
            self.at += LINE;
        }
        let line = vec![(x(mark), top), (x(mark), self.at - LINE / 2)];
        self.root.draw(&PathElement::new(line, INK.stroke_width(1)))
    }
}
