//! The chart: hits beside the floor and the peers, and below it how far each figure is
//! from its target.

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

/// The width of the chart, in pixels.
const WIDTH: i32 = 980;
/// Where bars begin and where the longest one ends, in pixels from the left.
const BARS: (i32, i32) = (500, 900);
/// The height of a line, in pixels.
const LINE: i32 = 20;

struct Bar {
    label: String,
    value: f64,
    colour: RGBColor,
}

/// Draws the figures into the file at `path`.
pub fn draw(results: &Results, path: &Path) -> Drawn {
    let hits = [
        hits(&results.figures, "drain"),
        hits(&results.figures, "per-core rate"),
    ];
    let targets: Vec<Bar> = results.figures.iter().filter_map(reached).collect();

    let lines = hits.iter().map(Vec::len).sum::<usize>() + targets.len() + 10;
    let size = (WIDTH as u32, (lines as i32 * LINE) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;

    let mut pen = Pen { root, at: LINE };
    let dates = results.figures.iter().map(|figure| figure.date.as_str());
    let date = dates.max().unwrap_or("never");
    pen.title(&format!("{}, {date}", results.machine))?;
    pen.hits(hits)?;

    pen.title("every figure: how many times as good as wanted (logarithmic; 1 is reached)")?;
    pen.bars(&targets, |value| (value.log10() + 1.0) / 2.0, 1.0)?;
    pen.root.present()
}

/// The bars of the servers that are compared with the floor, and of the floor itself.
fn hits(figures: &[Figure], kind: &str) -> Vec<Bar> {
    let bar = |figure: &Figure| {
        let name = figure
            .figure
            .strip_prefix(kind)?
            .strip_prefix(", ")?
            .strip_suffix(" / floor")?;
        let is_ours = name.starts_with("poetry");
        Some(Bar {
            label: name.to_string(),
            value: figure.got.as_ref().ok()?.median,
            colour: if is_ours { OURS } else { OTHERS },
        })
    };

    let of_hits = figures.iter().filter(|figure| figure.part == "hits");
    let mut bars: Vec<Bar> = of_hits.filter_map(bar).collect();
    if !bars.is_empty() {
        let floor = Bar {
            label: "floor (accept, send, close)".into(),
            value: 1.0,
            colour: OTHERS,
        };
        bars.insert(0, floor);
    }
    bars
}

/// How far a figure is from its target.
fn reached(figure: &Figure) -> Option<Bar> {
    let value = figure.reached()?;
    Some(Bar {
        label: format!("{}: {}", figure.work, figure.figure),
        value,
        colour: if value >= 1.0 { OURS } else { SHORT },
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
        self.at += LINE / 2;
        self.text(text, LINE, HPos::Left, 15)?;
        self.at += LINE * 3 / 2;
        Ok(())
    }

    /// Draws the drains and the rates, on one scale.
    fn hits(&mut self, hits: [Vec<Bar>; 2]) -> Drawn {
        let titles = [
            "queued hits served (drain)",
            "hits a second of one full core",
        ];
        let values = hits.iter().flatten().map(|bar| bar.value);
        let longest = values.fold(1.2, f64::max);

        for (bars, title) in hits.into_iter().zip(titles) {
            if !bars.is_empty() {
                self.title(&format!("{title}: a server's speed, with the floor's as 1"))?;
                self.bars(&bars, |value| value / longest, 1.0)?;
            }
        }
        Ok(())
    }

    /// Draws bars, and a vertical line at the value `mark`. `scale` turns a value into
    /// the end of its bar: 0 is the left edge, 1 the right.
    fn bars(&mut self, bars: &[Bar], scale: impl Fn(f64) -> f64, mark: f64) -> Drawn {
        let (left, right) = BARS;
        let x = |value: f64| {
            let fraction = scale(value).clamp(0.0, 1.0);
            left + (fraction * f64::from(right - left)) as i32
        };
        let top = self.at - LINE / 2;

        for bar in bars {
            self.text(&bar.label, left - 8, HPos::Right, 12)?;
            let end = x(bar.value);
            let corners = [(left, self.at - 7), (end, self.at + 7)];
            self.root
                .draw(&Rectangle::new(corners, bar.colour.filled()))?;
            self.text(&format!("{:.2}", bar.value), end + 6, HPos::Left, 12)?;
            self.at += LINE;
        }

        let line = vec![(x(mark), top), (x(mark), self.at - LINE / 2)];
        self.root.draw(&PathElement::new(line, INK.stroke_width(1)))
    }
}
