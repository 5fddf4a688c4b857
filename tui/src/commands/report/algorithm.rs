//! By which algorithm a campaign proposes.

use db::snapshot::Campaign;
use search::config::CampaignFile;

use crate::commands::optimize;

/// The name of its algorithm.
pub(super) fn name(campaign: &Campaign) -> anyhow::Result<String> {
    let algorithm = if campaign.is_black_box() {
        optimize::algorithm_of(campaign)?
    } else {
        CampaignFile::parse(&campaign.config_toml)
            .map_err(|error| {
                anyhow::anyhow!(
                    "the file of campaign `{}`, as it was stored, does not parse: {error}",
                    campaign.name
                )
            })?
            .search
            .algorithm
    };
    Ok(algorithm.name().to_owned())
}
