module ferromq/clients/suite

go 1.26

require github.com/apache/rocketmq-client-go/v2 v2.1.2
