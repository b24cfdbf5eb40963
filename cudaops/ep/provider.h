// The execution provider of one session.

#ifndef COSETQ_EP_PROVIDER_H_
#define COSETQ_EP_PROVIDER_H_

#include "api.h"
#include "operator.h"

namespace cosetq::ep {

class Provider : public OrtEp {
 public:
  explicit Provider(const OrtSessionOptions* options);

  Settings settings;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_PROVIDER_H_
