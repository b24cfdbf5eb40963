// The execution provider of one session.

#ifndef COSETQ_EP_PROVIDER_H_
#define COSETQ_EP_PROVIDER_H_

#include "api.h"

namespace cosetq::ep {

class Provider : public OrtEp {
 public:
  // The session's entry ai.coset.gpu_nodes: "all" takes also nodes that are not worth the way to the
  // device, which tests of single operators want.
  explicit Provider(const OrtSessionOptions* options);
  bool takes_all = false;
};

}  // namespace cosetq::ep

#endif  // COSETQ_EP_PROVIDER_H_
