output "cloud_init" {
  description = "The user data of each machine, by the node's name. It holds the node's token."
  value       = local.cloud_init
  sensitive   = true
  depends_on  = [terraform_data.tokens]
}

output "node_toml" {
  description = "The settings of each node, by its name; no secrets are in them."
  value       = local.node_toml
}
