#!/bin/sh
# Both sides of a call that goes on, as two tracks of one dialogue: snoops on a channel by ARI, which hear what it says
# and what is said to it, and sends each over AudioSocket.
#
#   ARI=http://user:password@localhost:8088/ari RECHKA=http://localhost:8080 AUDIOSOCKET=localhost:9092 \
#   sh both-sides.sh CHANNEL_ID
#
# Needs curl and jq, and somebody connected to ARI as the application "rechka", which both channels are given to.
set -eu
channel=$1
legs=$(curl -fsS -H "X-API-Key: ${RECHKA_API_KEY:-}" -d '{"tracks": ["client", "agent"]}' "$RECHKA/v1/calls")
echo "words: $RECHKA/v1/calls/$(echo "$legs" | jq -r .call)/events"
for side in in:client out:agent; do
  leg=$(echo "$legs" | jq -r ".legs.${side#*:}")
  snoop=$(curl -fsS -X POST "$ARI/channels/$channel/snoop?app=rechka&spy=${side%:*}" | jq -r .id)
  media=$(curl -fsS -X POST "$ARI/channels/externalMedia?app=rechka&external_host=$AUDIOSOCKET&format=slin\
&encapsulation=audiosocket&transport=tcp&data=$leg" | jq -r .id)
  bridge=$(curl -fsS -X POST "$ARI/bridges?type=mixing" | jq -r .id)
  curl -fsS -X POST "$ARI/bridges/$bridge/addChannel?channel=$snoop,$media"
done
