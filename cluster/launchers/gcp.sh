#!/usr/bin/env bash
# Prepares a Google Cloud project for a cluster: a bucket, an account for the nodes with a GPU, and build/gcp.yaml.
# May be run again, for another bucket or commit: what is there already stays, the .yaml as it was edited.
#   bash cluster/launchers/gcp.sh PROJECT ZONE BUCKET
set -euo pipefail
project=${1:?the project} zone=${2:?the zone, such as us-central1-a} bucket=${3:?the name of a bucket, yours or new}
cd "$(dirname "$0")/../.."
if [ -e build/gcp.yaml ] && ! { grep -q "^  availability_zone: *[\"']\?$zone[\"']\?\( \|\$\)" build/gcp.yaml &&
    grep -q "^  project_id: *[\"']\?$project[\"']\?\( \|\$\)" build/gcp.yaml; }; then
    echo "build/gcp.yaml is not of $project in $zone: end its cluster (ray down build/gcp.yaml) and remove it" >&2
    exit 2
fi
bash cluster/launchers/pack.sh
region=${zone%-*}
worker=squeeze-worker@$project.iam.gserviceaccount.com

gcloud services enable compute.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com --project "$project"
gcloud storage buckets describe "gs://$bucket" >/dev/null 2>&1 ||
    gcloud storage buckets create "gs://$bucket" --project "$project" --location "$region"
gcloud iam service-accounts describe "$worker" --project "$project" >/dev/null 2>&1 ||
    gcloud iam service-accounts create squeeze-worker --project "$project"
gcloud storage buckets add-iam-policy-binding "gs://$bucket" >/dev/null \
    --member "serviceAccount:$worker" --role roles/storage.objectAdmin

if [ -e build/gcp.yaml ]; then
    echo "build/gcp.yaml stays as it is; remove it to have it made anew"
else
    sed -e "s/SQUEEZE_REGION/$region/g" -e "s/SQUEEZE_ZONE/$zone/g" -e "s/SQUEEZE_PROJECT/$project/g" \
        cluster/launchers/gcp.yaml > build/gcp.yaml.part
    mv build/gcp.yaml.part build/gcp.yaml
fi
echo "build/gcp.yaml is ready: ray up build/gcp.yaml"
