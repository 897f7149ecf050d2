use kiln_proto::MAX_MESSAGE_SIZE;
use kiln_proto::control::control_client::ControlClient;
use tonic::transport::Channel;

/// A connection to a daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    control: ControlClient<Channel>,
    channel: Channel,
}

impl Client {
    pub(crate) fn new(channel: Channel) -> Self {
        let control = ControlClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE);
        Self { control, channel }
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        self.control.clone()
    }

    /// For services that no published client has.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}
