//! An answer on its way: it holds its place until it has gone out, and a stream ends when the door closes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, body::Body};

use super::{Refused, methods::Place};
use crate::reply;

pub(super) struct Counted {
    body: Body,
    /// Given back when the answer has gone out, or its caller has gone away.
    place: Option<Place>,
    /// Of a stream, which may be endless; a single answer goes out.
    closing: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Counted {
    pub(super) fn new(body: Body, place: Place, closing: Option<&CancellationToken>) -> Self {
        let closing = closing.map(|closing| Box::pin(closing.clone().cancelled_owned()));
        Self { body, place: Some(place), closing }
    }
}

impl hyper::body::Body for Counted {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if self.place.is_none() {
            return Poll::Ready(None);
        }
        // Looked at first: a stream that always has more would never end.
        if self.closing.as_mut().is_some_and(|closing| closing.as_mut().poll(cx).is_ready()) {
            self.place = None;
            return Poll::Ready(Some(Ok(Frame::trailers(stopping()))));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.place = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.place.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn stopping() -> hyper::HeaderMap {
    let mut trailers = hyper::HeaderMap::new();
    let status = reply::grpc(&Refused::Stopping);
    status.add_header(&mut trailers).expect("a status of the house is valid in headers");
    trailers
}
