#!/usr/bin/env bash
# Prepares an AWS account for a cluster: a bucket, a role for the head and one for the nodes with a GPU, and
# build/aws.yaml. May be run again, for another bucket or commit: what is there already stays, the .yaml as it was edited.
#   bash cluster/launchers/aws.sh REGION BUCKET
set -euo pipefail
region=${1:?the region, such as us-east-1} bucket=${2:?the name of an S3 bucket, yours or new}
cd "$(dirname "$0")/../.."
if [ -e build/aws.yaml ] && ! grep -q "^  region: *[\"']\?$region[\"']\?\( \|\$\)" build/aws.yaml; then
    echo "build/aws.yaml is of another region than $region: end its cluster (ray down build/aws.yaml) and remove it" >&2
    exit 2
fi
bash cluster/launchers/pack.sh
export AWS_DEFAULT_REGION=$region AWS_PAGER=""
account=$(aws sts get-caller-identity --query Account --output text)

aws s3api head-bucket --bucket "$bucket" >/dev/null 2>&1 || aws s3 mb "s3://$bucket"

data='{"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": "arn:aws:s3:::'$bucket'"},
      {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
       "Resource": "arn:aws:s3:::'$bucket'/*"}'
# The head starts nodes, tags them as it does, ends those that carry a Ray cluster's tag, and may give them the workers'
# role, no other.
nodes='{"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:RunInstances"], "Resource": "*"},
       {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*",
        "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}},
       {"Effect": "Allow", "Action": ["ec2:CreateTags", "ec2:DeleteTags", "ec2:TerminateInstances", "ec2:StopInstances",
        "ec2:StartInstances"], "Resource": "*", "Condition": {"StringLike": {"aws:ResourceTag/ray-cluster-name": "*"}}},
       {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::'$account':role/squeeze-worker"}'

make_role() { # name, policy statements: of each bucket one policy, so that another cluster keeps its own
    aws iam get-role --role-name "$1" >/dev/null 2>&1 || aws iam create-role --role-name "$1" >/dev/null \
        --assume-role-policy-document '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}'
    aws iam put-role-policy --role-name "$1" --policy-name "squeeze-$bucket" \
        --policy-document "{\"Version\": \"2012-10-17\", \"Statement\": [$2]}"
    aws iam get-instance-profile --instance-profile-name "$1" >/dev/null 2>&1 || {
        aws iam create-instance-profile --instance-profile-name "$1" >/dev/null
        aws iam add-role-to-instance-profile --instance-profile-name "$1" --role-name "$1"
        sleep "${SQUEEZE_IAM_WAIT:-15}" # until every part of AWS knows of it
    }
}
make_role squeeze-worker "$data"
make_role squeeze-head "$data, $nodes"
# The first use of spot in an account needs this role, which only a person may make.
aws iam create-service-linked-role --aws-service-name spot.amazonaws.com >/dev/null 2>&1 || true

# Ubuntu 24.04 with NVIDIA's driver; Python 3.12.
image=$(aws ssm get-parameter --query Parameter.Value --output text \
    --name /aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id)
if [ -e build/aws.yaml ]; then
    # With a newer image, `ray up` would end a head that runs and start another.
    echo "build/aws.yaml stays as it is; remove it to have it made anew"
else
    sed -e "s/SQUEEZE_REGION/$region/" -e "s/SQUEEZE_IMAGE/$image/" cluster/launchers/aws.yaml > build/aws.yaml.part
    mv build/aws.yaml.part build/aws.yaml
fi
echo "build/aws.yaml is ready: ray up build/aws.yaml"
