//! Section 5 of the DPU interface document: port statistics.

use tonic::{Request, Response, Status};

use super::proto::port_stats_server::PortStats;
use super::proto::*;
use super::{Dpu, required};

#[tonic::async_trait]
impl PortStats for Dpu {
    async fn get_port_stats(
        &self,
        request: Request<GetPortStatsRequest>,
    ) -> Result<Response<GetPortStatsResponse>, Status> {
        let vid = request.into_inner().vid;
        self.answer_with(
            move |service| {
                let name = service.name_numbered("vid", required("vid", vid)?)?;
                let report = service.stats(Some(&name))?;
                // A port that is not up has no counters.
                let nic = report.ports.first().map(|port| port.nic).unwrap_or_default();
                Ok(GetPortStatsResponse {
                    status: Some(0),
                    rx_packets: Some(nic.rx_packets),
                    tx_packets: Some(nic.tx_packets),
                    rx_bytes: Some(nic.rx_bytes),
                    tx_bytes: Some(nic.tx_bytes),
                    rx_drop: Some(nic.rx_drop),
                    tx_drop: Some(nic.tx_drop),
                    rx_error: Some(nic.rx_error),
                    tx_error: Some(nic.tx_error),
                    vid,
                    error: None,
                })
            },
            |answer| GetPortStatsResponse { vid: vid.or(Some(0)), ..answer },
        )
        .await
    }
}
