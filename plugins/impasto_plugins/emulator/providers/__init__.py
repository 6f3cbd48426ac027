"""Provider behaviour: Stability AI and Amazon Bedrock, request checks, signatures."""
