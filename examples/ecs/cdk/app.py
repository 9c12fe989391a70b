"""Two services, in the three ways that ECS registers tasks: one stack each.

pip install -r requirements.txt
cdk deploy AwsvpcA -c shop_image=111122223333.dkr.ecr.eu-west-1.amazonaws.com/shop:1
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_servicediscovery as cloudmap

EXAMPLES = Path(__file__).resolve().parent.parent
SERVER = (EXAMPLES / "server.py").read_text()
PORT = 8080
CALLABLE: dict[str, Any] = {  # a deployment of the service that is called
    "desired_count": 3,
    "min_healthy_percent": 100,  # new tasks first: at no time is the name without an address
    "max_healthy_percent": 200,
    "circuit_breaker": ecs.DeploymentCircuitBreaker(rollback=True),
}


class Example(cdk.Stack):
    """What the three have in common."""

    def __init__(self, scope: cdk.App, name: str) -> None:
        super().__init__(scope, name)
        self.vpc = ec2.Vpc(self, "Vpc", max_azs=2, nat_gateways=1)
        self.cluster = ecs.Cluster(self, "Cluster", vpc=self.vpc)
        self.logs = logs.LogGroup(
            self, "Logs", retention=logs.RetentionDays.TWO_WEEKS, removal_policy=cdk.RemovalPolicy.DESTROY
        )

    def context(self, name: str, default: str = "") -> str:
        return str(self.node.try_get_context(name) or default)

    def private_namespace(self) -> cloudmap.PrivateDnsNamespace:
        namespace = cloudmap.PrivateDnsNamespace(
            self, "Namespace", name=self.context("namespace", "prod.local"), vpc=self.vpc
        )
        # Seconds that a resolver remembers "there is no such name", for a service that has just started.
        below: Any = namespace.node.default_child
        below.add_property_override("Properties.DnsProperties.SOA.TTL", 15)
        return namespace

    def orders(self, task: ecs.TaskDefinition, **options: Any) -> None:
        """The container that is called."""
        task.add_container(
            "orders",
            image=ecs.ContainerImage.from_registry("public.ecr.aws/docker/library/python:3.13-slim"),
            command=["python", "-c", SERVER],
            # Seconds from SIGTERM to SIGKILL: 15 in which callers learn of it, and 25 for requests.
            stop_timeout=cdk.Duration.seconds(40),
            health_check=ecs.HealthCheck(
                command=[
                    "CMD-SHELL",
                    f"python -c \"import socket; socket.create_connection(('127.0.0.1', {PORT}), 2).close()\"",
                ],
                interval=cdk.Duration.seconds(5),
                timeout=cdk.Duration.seconds(3),
                retries=2,
                start_period=cdk.Duration.seconds(10),
            ),
            logging=ecs.LogDrivers.aws_logs(stream_prefix="orders", log_group=self.logs),
            **options,
        )

    def shop(self, task: ecs.TaskDefinition, environment: dict[str, str], **options: Any) -> None:
        """The container that calls."""
        inits = ecs.LinuxParameters(self, "Init", init_process_enabled=True)  # passes SIGTERM on, and reaps
        task.add_container(
            "shop",
            # An image with your program and ecs_discovery in it.
            image=ecs.ContainerImage.from_registry(self.context("shop_image", "shop_image-is-not-set")),
            environment={"ECS_DISCOVERY_INSPECT": "1", **environment},  # the first is for `ecs-discovery watch`
            linux_parameters=inits,
            logging=ecs.LogDrivers.aws_logs(stream_prefix="shop", log_group=self.logs),
            **options,
        )

    def fargate(self, name: str) -> ecs.FargateTaskDefinition:
        return ecs.FargateTaskDefinition(self, f"{name}Task", cpu=256, memory_limit_mib=512)


class AwsvpcA(Example):
    """Fargate (network mode awsvpc), A records in a private DNS namespace. With `-c tls_secret=ARN`, TLS.

    The secret has the JSON keys certificate, key and ca (PEM), issued by your private CA for orders.NAMESPACE.
    """

    def __init__(self, scope: cdk.App, name: str) -> None:
        super().__init__(scope, name)
        namespace = self.private_namespace()
        of_orders: dict[str, Any] = {}
        of_shop: dict[str, Any] = {}
        url = f"http://orders:{PORT}"
        if arn := self.context("tls_secret"):
            secret = secretsmanager.Secret.from_secret_complete_arn(self, "Tls", arn)
            names = {"CERTIFICATE": "certificate", "KEY": "key"}
            of_orders["secrets"] = {
                variable: ecs.Secret.from_secrets_manager(secret, key) for variable, key in names.items()
            }
            # PEM text: write it to a file, and pass the file as `verify`.
            of_shop["secrets"] = {"ORDERS_CA": ecs.Secret.from_secrets_manager(secret, "ca")}
            url = f"https://orders.{namespace.namespace_name}:{PORT}"

        task = self.fargate("Orders")
        self.orders(task, port_mappings=[ecs.PortMapping(container_port=PORT)], **of_orders)
        orders = ecs.FargateService(self, "Orders", cluster=self.cluster, task_definition=task, **CALLABLE)
        name_of = orders.enable_cloud_map(
            cloud_map_namespace=namespace,
            name="orders",
            dns_record_type=cloudmap.DnsRecordType.A,
            dns_ttl=cdk.Duration.seconds(10),  # CDK's own default is 60
        )
        cdk.CfnOutput(self, "OrdersName", value=f"{name_of.service_name}.{namespace.namespace_name}")

        task = self.fargate("Shop")
        self.shop(task, {"ECS_DISCOVERY_NAMESPACE": namespace.namespace_name, "ORDERS_URL": url}, **of_shop)
        shop = ecs.FargateService(
            self, "Shop", cluster=self.cluster, task_definition=task, desired_count=2, enable_execute_command=True
        )
        orders.connections.allow_from(shop, ec2.Port.tcp(PORT), "From the tasks of shop, straight to the container")


class BridgeSrv(Example):
    """EC2 instances in network mode bridge: SRV records tell the host port of each task."""

    def __init__(self, scope: cdk.App, name: str) -> None:
        super().__init__(scope, name)
        namespace = self.private_namespace()
        instances = autoscaling.AutoScalingGroup(
            self,
            "Instances",
            vpc=self.vpc,
            instance_type=ec2.InstanceType("t3.small"),
            machine_image=ecs.EcsOptimizedImage.amazon_linux2023(),
            desired_capacity=2,
            max_capacity=4,
        )
        self.cluster.add_asg_capacity_provider(ecs.AsgCapacityProvider(self, "Capacity", auto_scaling_group=instances))
        instances.connections.allow_internally(
            ec2.Port.tcp_range(32768, 65535), "Between the instances, to the host ports that Docker gives to tasks"
        )

        task = ecs.Ec2TaskDefinition(self, "OrdersTask", network_mode=ecs.NetworkMode.BRIDGE)
        self.orders(
            task,
            cpu=128,
            memory_limit_mib=256,
            port_mappings=[ecs.PortMapping(container_port=PORT, host_port=0)],  # any free port of the instance
        )
        orders = ecs.Ec2Service(self, "Orders", cluster=self.cluster, task_definition=task, **CALLABLE)
        orders.enable_cloud_map(
            cloud_map_namespace=namespace,
            name="orders",
            dns_record_type=cloudmap.DnsRecordType.SRV,  # ECS registers SRV records alone in this mode
            dns_ttl=cdk.Duration.seconds(10),
            container_port=PORT,
        )

        task = ecs.Ec2TaskDefinition(self, "ShopTask", network_mode=ecs.NetworkMode.BRIDGE)
        self.shop(
            task,
            # Without a port: the SRV records tell the port of each task.
            {"ECS_DISCOVERY_NAMESPACE": namespace.namespace_name, "ORDERS_URL": "http://orders"},
            cpu=128,
            memory_limit_mib=256,
        )
        ecs.Ec2Service(
            self, "Shop", cluster=self.cluster, task_definition=task, desired_count=2, enable_execute_command=True
        )


class HttpNamespace(Example):
    """Fargate in an HTTP namespace, which has no DNS: Service Connect registers, and the API of Cloud Map is asked."""

    def __init__(self, scope: cdk.App, name: str) -> None:
        super().__init__(scope, name)
        namespace = cloudmap.HttpNamespace(self, "Namespace", name=self.context("namespace", "prod"))

        task = self.fargate("Orders")
        self.orders(task, port_mappings=[ecs.PortMapping(container_port=PORT, name="http")])
        orders = ecs.FargateService(
            self,
            "Orders",
            cluster=self.cluster,
            task_definition=task,
            service_connect_configuration=ecs.ServiceConnectProps(
                namespace=namespace.namespace_arn,
                services=[
                    ecs.ServiceConnectService(
                        port_mapping_name="http",
                        discovery_name="orders",  # the service's name in Cloud Map
                        dns_name="orders",  # for callers with Service Connect
                        port=PORT,
                    )
                ],
            ),
            **CALLABLE,
        )

        task = self.fargate("Shop")
        target = f"cloudmap://{namespace.namespace_name}/orders?port={PORT}"
        self.shop(task, {"ECS_DISCOVERY_SERVICES": f"orders={target}", "ORDERS_URL": f"http://orders:{PORT}"})
        # Cloud Map has no finer permission for these two calls than all services.
        for statement in json.loads((EXAMPLES / "iam" / "cloud-map.json").read_text())["Statement"]:
            task.add_to_task_role_policy(iam.PolicyStatement.from_json(statement))
        shop = ecs.FargateService(
            self, "Shop", cluster=self.cluster, task_definition=task, desired_count=2, enable_execute_command=True
        )
        orders.connections.allow_from(shop, ec2.Port.tcp(PORT), "From the tasks of shop, straight to the container")


# Instances by launch templates: AWS gives no launch configurations to new accounts.
app = cdk.App(post_cli_context={"@aws-cdk/aws-autoscaling:generateLaunchTemplateInsteadOfLaunchConfig": True})
for stack in (AwsvpcA, BridgeSrv, HttpNamespace):
    stack(app, stack.__name__)
app.synth()
