//! `GET /metrics`, for any number of readers at the cost of few texts.
//!
//! Requests that come while a text is made share the next one, so each reader gets counters from after its request.
//! Making texts takes a quarter of a CPU at most. A reader is sent small pieces, so a slow one keeps no copy of its
//! own. Readers that are too slow are cut off. While too many texts are kept by slow readers, others share the newest.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ctl_service::Service;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Mutex;

use crate::scrape;
use crate::text::CONTENT_TYPE;

/// Bytes of a piece. Each slow reader keeps a few.
const PIECE: usize = 16 << 10;
/// Time for a reader to take the whole text.
const DEADLINE: Duration = Duration::from_secs(20);
/// After a text was made there is a pause, this many times as long as that took.
const REST: u32 = 3;
/// Time for which a text is kept without readers, so that all waiting requests can share it.
const KEEP: Duration = Duration::from_millis(100);
/// Bytes of texts that slow readers may keep before others share the newest.
const KEPT: usize = 64 << 20;

/// A text, and when its making began.
#[derive(Debug)]
struct Text {
    bytes: Vec<u8>,
    began: Instant,
}

/// Texts that readers have.
#[derive(Debug, Default)]
struct Texts {
    kept: Vec<Weak<Text>>,
    /// No text is made before.
    not_before: Option<Instant>,
}

impl Texts {
    /// A text for a request of that moment, if none has to be made.
    fn shared(&mut self, asked: Instant) -> Option<Arc<Text>> {
        self.kept.retain(|text| text.strong_count() > 0);
        let newest = self.kept.last()?.upgrade()?;
        let bytes: usize = self.kept.iter().filter_map(Weak::upgrade).map(|text| text.bytes.len()).sum();
        (newest.began >= asked || bytes + newest.bytes.len() > KEPT.max(2 * newest.bytes.len())).then_some(newest)
    }
}

/// Makes the texts.
struct Endpoint {
    make: Box<dyn Fn() -> String + Send + Sync>,
    texts: Mutex<Texts>,
}

impl Endpoint {
    /// A text from after this call, unless too many are kept.
    async fn text(self: Arc<Self>) -> Result<Arc<Text>, tokio::task::JoinError> {
        let asked = Instant::now();
        // Whoever has the lock makes a text. The others wait for it here.
        let mut texts = self.texts.lock().await;
        if let Some(text) = texts.shared(asked) {
            return Ok(text);
        }
        if let Some(moment) = texts.not_before {
            tokio::time::sleep_until(moment.into()).await;
        }
        let (endpoint, began) = (Arc::clone(&self), Instant::now());
        let bytes = tokio::task::spawn_blocking(move || (endpoint.make)().into_bytes()).await?;
        let text = Arc::new(Text { bytes, began });
        texts.not_before = Some(Instant::now() + REST * began.elapsed());
        texts.kept.push(Arc::downgrade(&text));
        let kept = Arc::clone(&text);
        tokio::spawn(async move {
            tokio::time::sleep(KEEP).await;
            drop(kept);
        });
        Ok(text)
    }
}

/// A text on its way to a reader.
struct Reading {
    text: Option<Arc<Text>>,
    at: usize,
    end: Instant,
}

impl Reading {
    fn new(text: Arc<Text>) -> Self {
        Self { text: Some(text), at: 0, end: Instant::now() + DEADLINE }
    }

    fn left(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.bytes.len() - self.at)
    }
}

impl hyper::body::Body for Reading {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let piece = match &self.text {
            None => return Poll::Ready(None),
            Some(_) if Instant::now() > self.end => {
                self.text = None;
                return Poll::Ready(Some(Err(std::io::ErrorKind::TimedOut.into())));
            }
            // A copy, because a slice would keep the whole text for a reader that is too slow.
            Some(text) => Bytes::copy_from_slice(&text.bytes[self.at..][..PIECE.min(self.left())]),
        };
        self.at += piece.len();
        if self.left() == 0 {
            self.text = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left() as u64)
    }
}

/// `GET /metrics`.
pub fn router(service: Arc<Service>) -> Router {
    routes(move || scrape(&service))
}

fn routes(make: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let endpoint = Arc::new(Endpoint { make: Box::new(make), texts: Mutex::default() });
    Router::new().route("/metrics", get(metrics)).with_state(endpoint)
}

async fn metrics(State(endpoint): State<Arc<Endpoint>>) -> Response {
    match endpoint.text().await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(Reading::new(text))).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    /// Routes whose texts have that length, and the number of texts made.
    fn counted(length: usize) -> (Router, Arc<AtomicUsize>) {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let make = move || {
            std::thread::sleep(Duration::from_millis(20));
            count.fetch_add(1, Ordering::SeqCst).to_string().repeat(length)
        };
        (routes(make), made)
    }

    async fn ask(router: &Router) -> Response {
        router.clone().oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn read(answer: Response) -> Vec<u8> {
        answer.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn requests_at_once_share_a_text_and_later_ones_get_a_new_one() {
        let (router, made) = counted(100_000);
        let asked: Vec<_> = (0..64)
            .map(|_| {
                tokio::spawn({
                    let router = router.clone();
                    async move { ask(&router).await }
                })
            })
            .collect();
        for answer in asked {
            let answer = answer.await.unwrap();
            assert_eq!(answer.headers()["content-type"], CONTENT_TYPE);
            assert_eq!(read(answer).await.len(), 100_000);
        }
        assert!(made.load(Ordering::SeqCst) <= 2, "{made:?}");
        let (first, second) = (read(ask(&router).await).await, read(ask(&router).await).await);
        assert_ne!(first, second, "a later request gets later counters");
    }

    #[tokio::test]
    async fn readers_that_do_not_read_keep_few_texts() {
        let (router, made) = counted(KEPT / 2);
        let mut slow = Vec::new();
        for _ in 0..10 {
            slow.push(ask(&router).await);
        }
        assert_eq!(made.load(Ordering::SeqCst), 2);
        assert_eq!(read(ask(&router).await).await[0], b'1', "it shares the newest");
        slow.clear();
        tokio::time::sleep(2 * KEEP).await;
        assert_eq!(read(ask(&router).await).await[0], b'2', "there is room for a new one");
    }

    #[tokio::test]
    async fn a_text_is_let_go_when_its_readers_are_gone_or_late() {
        let text = Arc::new(Text { bytes: vec![0; PIECE + 1], began: Instant::now() });
        let mut reading = Reading::new(Arc::clone(&text));
        assert_eq!(reading.frame().await.unwrap().unwrap().into_data().unwrap().len(), PIECE);
        assert_eq!((Arc::strong_count(&text), reading.left()), (2, 1));
        assert_eq!(reading.frame().await.unwrap().unwrap().into_data().unwrap().len(), 1);
        assert_eq!(Arc::strong_count(&text), 1);
        assert!(reading.frame().await.is_none());
        let mut late = Reading { text: Some(Arc::clone(&text)), at: 0, end: Instant::now() - KEEP };
        assert!(late.frame().await.unwrap().is_err());
        assert_eq!(Arc::strong_count(&text), 1);
    }
}
