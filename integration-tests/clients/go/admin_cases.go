// Topics made and deleted through the admin client.
package main

import (
	"slices"

	"github.com/apache/rocketmq-client-go/v2/admin"
)

var adminCases = []testCase{
	{"admin-topics", adminTopics},
	{"admin-groups", adminGroups},
}

func adminTopics(s *stage) {
	topic := s.topic(6)
	s.send(message(topic, "first"))
	listed := func() bool {
		list, err := s.admin.FetchAllTopicList(ctx)
		must(err, "the list of topics")
		return slices.Contains(list.TopicList, topic)
	}
	eventually(10, "the new topic is listed", listed)
	must(s.admin.DeleteTopic(ctx, admin.WithTopicDelete(topic), admin.WithBrokerAddrDelete(s.broker),
		admin.WithNameSrvAddr([]string{s.namesrv})), "delete the topic")
	eventually(10, "the deleted topic is not listed", func() bool { return !listed() })
	s.createTopic(topic, 6)
	equal(0, len(s.stored(topic)), "messages in the topic that was made anew")
}

func adminGroups(s *stage) {
	topic := s.topic(1)
	group := s.group()
	s.collect(group, topic, "*")
	eventually(30, "the group of a consumer is listed", func() bool {
		groups, err := s.admin.GetAllSubscriptionGroup(ctx, s.broker, 5_000_000_000)
		must(err, "the list of groups")
		_, found := groups.SubscriptionGroupTable[group]
		return found
	})
}
