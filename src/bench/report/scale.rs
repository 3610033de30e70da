//! Where values stand in a picture, and which of them are written at its edges. It draws nothing.

/// How a picture's horizontal axis goes.
#[derive(Debug, Clone)]
pub(super) enum Axis {
    /// From zero, in even steps.
    Linear,
    /// In even ratios; all that is there is written.
    Log,
    /// These, at 1, 2, 3 and so on.
    Names(Vec<&'static str>),
}

/// The edges between which values stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// Where values stand in the picture.
#[derive(Debug)]
pub(super) struct Scale<'a> {
    axis: &'a Axis,
    pub(super) room: Room,
    /// Every horizontal value, in rising order.
    xs: Vec<f64>,
    y_most: f64,
}

/// Between the edges and the first and last value of a logarithmic axis.
const INSET: f64 = 20.0;
/// What is written closer than this to its neighbour is left out.
const TICK_WIDTH: f64 = 26.0;

impl<'a> Scale<'a> {
    pub(super) fn of(axis: &'a Axis, room: Room, mut xs: Vec<f64>, y_most: f64) -> Self {
        xs.sort_unstable_by(f64::total_cmp);
        xs.dedup();
        Self { axis, room, xs, y_most: round_up(y_most) }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        let (left, width) = (self.room.left, self.room.right - self.room.left);
        let (least, most) = (self.xs.first().copied().unwrap_or(0.0), self.xs.last().copied().unwrap_or(0.0));
        match self.axis {
            Axis::Linear => left + value / most.max(1e-9) * width,
            Axis::Log if least > 0.0 && most > least => {
                left + INSET + (value / least).ln() / (most / least).ln() * (width - 2.0 * INSET)
            }
            Axis::Log => left + width / 2.0,
            Axis::Names(names) => left + (value - 0.5) / names.len() as f64 * width,
        }
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.room.bottom - value / self.y_most * (self.room.bottom - self.room.top)
    }

    /// What is written below, with its place.
    pub(super) fn x_ticks(&self) -> Vec<(f64, String)> {
        match self.axis {
            Axis::Linear => even(self.xs.last().copied().unwrap_or(0.0))
                .map(|value| (self.x(value), trimmed(value)))
                .collect(),
            Axis::Log => apart(self.xs.iter().map(|&value| (self.x(value), trimmed(value)))),
            Axis::Names(names) => {
                (1..).zip(names).map(|(at, name)| (self.x(f64::from(at)), (*name).to_owned())).collect()
            }
        }
    }

    /// What is written at the left, with its place.
    pub(super) fn y_ticks(&self) -> impl Iterator<Item = (f64, String)> {
        (0..=4).map(|tick| {
            let value = self.y_most * f64::from(tick) / 4.0;
            (self.y(value), trimmed(value))
        })
    }
}

/// About five even steps from zero to this.
fn even(most: f64) -> impl Iterator<Item = f64> {
    let power = 10f64.powf((most.max(1e-9) / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(10.0 * power);
    (0..=(most / step) as u32).map(move |tick| f64::from(tick) * step)
}

/// Those that do not stand in the way of one before.
fn apart(ticks: impl Iterator<Item = (f64, String)>) -> Vec<(f64, String)> {
    let mut kept: Vec<(f64, String)> = Vec::new();
    for tick in ticks {
        if kept.last().is_none_or(|last| tick.0 - last.0 >= TICK_WIDTH) {
            kept.push(tick);
        }
    }
    kept
}

/// To a number that divides well.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|&up| up >= value)
        .unwrap_or(value)
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { left: 0.0, right: 120.0, top: 0.0, bottom: 100.0 };

    #[test]
    fn axes_end_at_numbers_that_divide_well() {
        assert_eq!(
            [0.0, 0.7, 1.0, 950.0, 1001.0, 43_000.0].map(round_up),
            [1.0, 0.8, 1.0, 1000.0, 1200.0, 50_000.0]
        );
    }

    #[test]
    fn each_axis_has_its_places_and_says_them() {
        let log = Scale::of(&Axis::Log, ROOM, vec![10.0, 1.0, 1.0, 1.1], 100.0);
        assert_eq!((log.x(1.0), log.x(10.0), log.y(50.0)), (20.0, 100.0, 50.0));
        // What would stand on its neighbour is not written.
        assert_eq!(log.x_ticks(), [(20.0, "1".to_owned()), (100.0, "10".to_owned())]);
        assert_eq!(Scale::of(&Axis::Log, ROOM, vec![2.0], 1.0).x(2.0), 60.0);
        let names = Axis::Names(vec!["a", "b"]);
        let names = Scale::of(&names, ROOM, vec![1.0, 2.0], 1.0);
        assert_eq!(names.x_ticks(), [(30.0, "a".to_owned()), (90.0, "b".to_owned())]);
        let linear = Scale::of(&Axis::Linear, ROOM, vec![0.0, 3.1], 1.0);
        let written: Vec<_> = linear.x_ticks().into_iter().map(|tick| tick.1).collect();
        assert_eq!(written, ["0", "1", "2", "3"]);
    }
}
