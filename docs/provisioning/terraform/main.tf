# Cloud-init for the nodes of a mesh: each machine installs the package, writes its settings and its token, and starts the
# node. Needs no provider: hand the outputs to the machines of whichever provider there is (OPERATIONS.md,
# "Provisioning").

terraform {
  required_version = ">= 1.4"
}

locals {
  settings = {
    for name, node in var.nodes : name => merge(
      # A setting that is null is not given.
      { for key, value in var.settings : key => value if value != null },
      length(node.advertise) > 0 ? { advertise = node.advertise } : {},
      length(node.segments) > 0 ? { segments = node.segments } : {},
      length(var.controller) > 0 ? { controller = var.controller } : {},
      { role = "node", name = name, join = "@/etc/meshd/token" },
    )
  }

  # A JSON text, number, truth value or list of them is TOML too; variables.tf refuses others.
  node_toml = {
    for name, settings in local.settings : name => join("", concat(
      ["# Written by cloud-init. `meshd --help` explains every setting.\n"],
      [for key, value in settings : "${key} = ${jsonencode(value)}\n"],
    ))
  }

  # The package's own settings files give way to those that are there. The token's file belongs to the daemon's user, whom
  # the package makes.
  install = <<-SH
    curl --fail --silent --show-error --location --retry 5 --output /run/meshd.deb "$1"
    echo "$2  /run/meshd.deb" | sha256sum --check
    apt-get update
    apt-get install --yes --option Dpkg::Options::=--force-confold nftables /run/meshd.deb
    install -m 0600 -o meshd -g meshd /etc/meshd/token.new /etc/meshd/token
    rm /etc/meshd/token.new /run/meshd.deb
    systemctl enable --now meshd-node
  SH

  cloud_init = {
    for name, node in var.nodes : name => join("\n", ["#cloud-config", yamlencode({
      hostname = name
      write_files = [
        { path = "/etc/meshd/node.toml", permissions = "0644", content = local.node_toml[name] },
        { path = "/etc/meshd/token.new", permissions = "0600", content = "${lookup(var.tokens, name, "")}\n" },
      ]
      runcmd = [["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", local.install, "sh", var.package_url, var.package_sha256]]
    })])
  }
}

# The machines' names and tokens belong together: a node without a token would be made in vain.
resource "terraform_data" "tokens" {
  input = sort(keys(var.nodes))

  lifecycle {
    precondition {
      condition     = length(setsubtract(keys(var.nodes), nonsensitive(keys(var.tokens)))) == 0
      error_message = "No token for: ${join(", ", setsubtract(keys(var.nodes), nonsensitive(keys(var.tokens))))}. `./tokens NAME…` at the controller makes them."
    }
  }
}
