//! Layout of the picture: places boxes and arrows. It is a layered layout, with columns as layers.
//!
//! Boxes are in columns, and arrows go to the right unless they close a circle. An arrow that passes a column has a
//! place of its own there, so that it runs beside the boxes.

/// A point: x, y.
pub type Point = (f64, f64);

/// Space between columns, in pixels as all lengths here.
const COLUMN_GAP: f64 = 130.0;
/// Space between boxes of a column.
const GAP: f64 = 22.0;
/// Space around the picture.
const MARGIN: f64 = 15.0;
/// Height of the place of an arrow that passes a column.
const PASSING: f64 = 4.0;
/// How often the order within columns is improved.
const SWEEPS: usize = 6;

/// The layout.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Upper left corners of the boxes.
    pub boxes: Vec<Point>,
    /// Points of each arrow, from its tail to its head.
    pub arrows: Vec<Vec<Point>>,
    /// Size of the picture.
    pub size: Point,
}

/// A box, or the place of an arrow in a column that it passes.
struct Item {
    /// Its column.
    rank: usize,
    size: Point,
    /// Neighbours in the column before.
    left: Vec<usize>,
    /// Neighbours in the column after.
    right: Vec<usize>,
    /// Upper left corner.
    at: Point,
    /// Index in its column, from the top.
    order: f64,
}

/// Places boxes of these sizes, and arrows from one box to another.
pub fn place(sizes: &[Point], arrows: &[(usize, usize)]) -> Places {
    let ranks = ranks(sizes.len(), arrows);
    let item = |rank: usize, size: Point| Item { rank, size, left: vec![], right: vec![], at: (0.0, 0.0), order: 0.0 };
    let mut items: Vec<Item> = sizes.iter().zip(&ranks).map(|(&size, &rank)| item(rank, size)).collect();
    let mut ways = Vec::new();
    for &(from, to) in arrows {
        let (first, last) = if ranks[from] <= ranks[to] { (from, to) } else { (to, from) };
        let mut way = vec![first];
        for rank in ranks[first] + 1..ranks[last] {
            items.push(item(rank, (0.0, PASSING)));
            way.push(items.len() - 1);
        }
        if first != last {
            way.push(last);
        }
        for pair in way.windows(2) {
            items[pair[0]].right.push(pair[1]);
            items[pair[1]].left.push(pair[0]);
        }
        ways.push(way);
    }
    let columns = columns(&mut items);
    let size = spread(&mut items, &columns);
    let arrows = arrows.iter().zip(&ways).map(|(&(from, _), way)| points(&items, way, from)).collect();
    Places { boxes: items[..sizes.len()].iter().map(|item| item.at).collect(), arrows, size }
}

/// The column of each box: after all boxes with arrows to it. Arrows that close a circle do not count.
fn ranks(count: usize, arrows: &[(usize, usize)]) -> Vec<usize> {
    let mut next = vec![Vec::new(); count];
    for &(from, to) in arrows.iter().filter(|(from, to)| from != to) {
        next[from].push(to);
    }
    // Depth-first search. An arrow to a box on the present path closes a circle.
    let mut order = Vec::new();
    let (mut seen, mut open) = (vec![false; count], vec![false; count]);
    let mut forward = vec![Vec::new(); count];
    // Boxes that no arrow leads to come first.
    let mut roots: Vec<usize> = (0..count).collect();
    roots.sort_by_key(|root| arrows.iter().any(|(from, to)| to == root && from != root));
    for root in roots {
        if seen[root] {
            continue;
        }
        seen[root] = true;
        open[root] = true;
        let mut way = vec![(root, 0)];
        while let Some((at, tried)) = way.last_mut() {
            let at = *at;
            let Some(&to) = next[at].get(*tried) else {
                open[at] = false;
                order.push(at);
                way.pop();
                continue;
            };
            *tried += 1;
            if open[to] {
                continue;
            }
            forward[at].push(to);
            if !seen[to] {
                seen[to] = true;
                open[to] = true;
                way.push((to, 0));
            }
        }
    }
    let mut ranks = vec![0; count];
    for &at in order.iter().rev() {
        for &to in &forward[at] {
            ranks[to] = ranks[to].max(ranks[at] + 1);
        }
    }
    ranks
}

/// The items of each column, from top to bottom. Sorting them by the mean order of their neighbours makes few arrows
/// cross. Sweeps go to the right and to the left in turn.
fn columns(items: &mut [Item]) -> Vec<Vec<usize>> {
    let last = items.iter().map(|item| item.rank).max().unwrap_or(0);
    let mut columns = vec![Vec::new(); last + 1];
    for (at, item) in items.iter_mut().enumerate() {
        item.order = columns[item.rank].len() as f64;
        columns[item.rank].push(at);
    }
    for sweep in 0..SWEEPS {
        let rightward = sweep % 2 == 0;
        let mut turn: Vec<_> = columns.iter_mut().collect();
        if !rightward {
            turn.reverse();
        }
        for column in turn {
            let middle = |at: usize| {
                let near = if rightward { &items[at].left } else { &items[at].right };
                let sum: f64 = near.iter().map(|&at| items[at].order).sum();
                if near.is_empty() { items[at].order } else { sum / near.len() as f64 }
            };
            let mut sorted: Vec<_> = column.iter().map(|&at| (middle(at), at)).collect();
            sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
            *column = sorted.into_iter().map(|(_, at)| at).collect();
            for (order, &at) in column.iter().enumerate() {
                items[at].order = order as f64;
            }
        }
    }
    columns
}

/// Gives items their places, with columns centred vertically. Returns the size of the picture.
fn spread(items: &mut [Item], columns: &[Vec<usize>]) -> Point {
    let height = |items: &[Item], column: &[usize]| column.iter().map(|&at| items[at].size.1 + GAP).sum::<f64>() - GAP;
    let tallest = columns.iter().map(|column| height(items, column)).fold(0.0, f64::max);
    let mut x = MARGIN;
    for column in columns {
        let width = column.iter().map(|&at| items[at].size.0).fold(0.0, f64::max);
        let mut y = MARGIN + (tallest - height(items, column)) / 2.0;
        for &at in column {
            let item = &mut items[at];
            item.at = (x + (width - item.size.0) / 2.0, y);
            y += item.size.1 + GAP;
        }
        x += width + COLUMN_GAP;
    }
    (x - COLUMN_GAP + MARGIN, tallest + 2.0 * MARGIN)
}

/// The points of an arrow. Arrows that share a side of a box have separate points there.
fn points(items: &[Item], way: &[usize], from: usize) -> Vec<Point> {
    let side = |at: usize, other: usize, right: bool| {
        let item = &items[at];
        let mut near = if right { item.right.clone() } else { item.left.clone() };
        near.sort_by(|a, b| items[*a].order.total_cmp(&items[*b].order));
        let place = near.iter().position(|near| *near == other).unwrap_or(0) as f64 + 1.0;
        let y = item.at.1 + item.size.1 * place / (near.len() as f64 + 1.0);
        (if right { item.at.0 + item.size.0 } else { item.at.0 }, y)
    };
    let [first, .., last] = way else {
        // An arrow from a box to itself goes around the lower right corner.
        let Item { at, size, .. } = &items[way[0]];
        let corner = (at.0 + size.0, at.1 + size.1);
        return vec![(corner.0, corner.1 - 8.0), (corner.0 + 12.0, corner.1 + 6.0), (corner.0 - 12.0, corner.1)];
    };
    let mut points = vec![side(*first, way[1], true)];
    for &at in &way[1..way.len() - 1] {
        points.push((items[at].at.0, items[at].at.1 + PASSING / 2.0));
    }
    points.push(side(*last, way[way.len() - 2], false));
    if from != *first {
        points.reverse();
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Point = (50.0, 20.0);

    #[test]
    fn arrows_go_right_until_they_close_a_circle() {
        assert_eq!(ranks(4, &[(0, 1), (1, 2), (0, 2), (2, 0), (3, 3)]), [0, 1, 2, 0]);
        assert_eq!(ranks(3, &[(2, 1), (1, 0)]), [2, 1, 0]);
    }

    #[test]
    fn boxes_do_not_overlap_and_arrows_end_at_them() {
        let arrows = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (3, 0), (4, 4), (0, 1)];
        let places = place(&[BOX; 5], &arrows);
        for (n, a) in places.boxes.iter().enumerate() {
            for b in &places.boxes[n + 1..] {
                assert!((a.0 - b.0).abs() >= BOX.0 || (a.1 - b.1).abs() >= BOX.1, "{a:?} {b:?}");
            }
            assert!(a.0 >= 0.0 && a.1 >= 0.0 && a.0 + BOX.0 <= places.size.0 && a.1 + BOX.1 <= places.size.1);
        }
        for (&(from, to), points) in arrows.iter().zip(&places.arrows) {
            for (end, at) in [(points[0], from), (points[points.len() - 1], to)] {
                let (x, y) = places.boxes[at];
                assert!((x..=x + BOX.0).contains(&end.0) && (y..=y + BOX.1).contains(&end.1), "{from} to {to}");
            }
        }
    }
}
